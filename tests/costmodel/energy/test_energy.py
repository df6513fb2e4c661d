from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel import estimate
from costmodel.energy import (
    PowerModel,
    PowerWindow,
    datasheet_power,
    estimate_energy,
    fit_power_model,
    regime_shares,
    stage_energy,
)
from costmodel.roofline import StageCost
from hardware_specs import get_hardware
from hardware_specs.errors import InvalidInputError, UnknownHardwareError

A100 = "nvidia-a100-sxm4-80gb"
POWER = PowerModel(60.0, 240.0, 360.0, 400.0, spread=0.1, windows=12)
seconds = st.floats(1e-6, 10.0)


def test_energy_by_hand():
    # 10 s: 3 s of arithmetic, 2 s of traffic, 5 s waiting for the host.
    cost = StageCost(
        kernels=1, time_s=10.0, time_low_s=8.0, time_high_s=12.0, compute_s=3.0, memory_s=2.0
    )
    found = stage_energy(cost, POWER)
    assert found.energy_j == pytest.approx(3 * 360 + 2 * 240 + 5 * 60)  # 1860 J
    assert found.energy_low_j == pytest.approx(186 * 0.9 * 8)
    # At the upper end no power passes the limit of 400 W.
    assert found.energy_high_j == pytest.approx(186 * 1.1 * 12)


@given(seconds, seconds, seconds, st.floats(1.0, 3.0))
def test_energy_never_exceeds_the_limit_times_the_time(compute, memory, wait, stretch):
    time = compute + memory + wait
    cost = StageCost(
        kernels=1, time_s=time, time_low_s=time / stretch, time_high_s=time * stretch,
        compute_s=compute, memory_s=memory,
    )  # fmt: skip
    for power in (POWER, PowerModel(limit_w=400.0), replace(POWER, spread=5.0)):
        found = stage_energy(cost, power)
        assert found.energy_high_j <= 400 * cost.time_high_s * (1 + 1e-12)
        if found.energy_j is not None:
            assert found.energy_j <= 400 * time * (1 + 1e-12)


@given(seconds, st.floats(0.5, 4.0))
def test_energy_is_linear_in_time(time, factor):
    cost = StageCost(kernels=1, time_s=time, time_low_s=time, time_high_s=time, compute_s=time)
    twice = StageCost(
        kernels=1, time_s=time * factor, time_low_s=time, time_high_s=time, compute_s=time * factor
    )
    ratio = stage_energy(twice, POWER).energy_j / stage_energy(cost, POWER).energy_j
    assert ratio == pytest.approx(factor)


def test_nothing_that_runs_costs_nothing():
    found = stage_energy(StageCost(), PowerModel(limit_w=400.0))
    assert (found.energy_low_j, found.energy_j, found.energy_high_j) == (0.0, 0.0, 0.0)


def test_a_datasheet_gives_an_upper_end_only():
    cost = estimate("llava-1.5-7b", A100, output_tokens=2)
    energy = estimate_energy(cost)
    prefill = energy.stages["prefill"]
    assert prefill.energy_high_j == pytest.approx(400 * cost.stages["prefill"].time_high_s)
    assert prefill.energy_low_j is None
    assert prefill.energy_j is None
    assert energy.totals.energy_high_j == pytest.approx(
        sum(stage.energy_high_j for stage in energy.stages.values())
    )
    assert any("idle power is on no data sheet" in note for note in energy.notes)
    assert any("a bracket, not a prediction" in note for note in energy.notes)


def test_a_known_idle_power_closes_the_bracket():
    cost = estimate("llava-1.5-7b", A100)
    energy = estimate_energy(cost, PowerModel(idle_w=50.0))
    prefill = energy.stages["prefill"]
    # The limit comes from the data sheet.
    assert prefill.energy_high_j == pytest.approx(400 * cost.stages["prefill"].time_high_s)
    assert prefill.energy_low_j == pytest.approx(50 * cost.stages["prefill"].time_low_s)
    assert prefill.energy_j is None


def test_measured_powers_predict_every_stage():
    cost = estimate("llava-1.5-7b", A100, execution="hf-eager", calibration=A100, output_tokens=4)
    energy = estimate_energy(cost, POWER)
    for name, stage in energy.stages.items():
        assert stage.energy_low_j <= stage.energy_j <= stage.energy_high_j, name
    assert energy.totals.energy_j == pytest.approx(
        sum(stage.energy_j for stage in energy.stages.values())
    )
    assert energy.to_dict()["power"]["compute_w"] == 360.0


def test_decoding_draws_memory_power_and_prefill_compute_power():
    cost = estimate("llava-1.5-7b", A100, visual_tokens=576, output_tokens=8)
    energy = estimate_energy(cost, replace(POWER, idle_w=60.0))
    decode = energy.stages["decode"].energy_j / cost.stages["decode"].time_s
    prefill = energy.stages["prefill"].energy_j / cost.stages["prefill"].time_s
    assert decode == pytest.approx(240, rel=0.02)
    assert 330 < prefill <= 360


def test_a_device_without_a_limit_has_no_upper_end():
    hardware = replace(get_hardware(A100), tdp_w=None)
    cost = estimate("llava-1.5-7b", hardware)
    energy = estimate_energy(cost, hardware=hardware)
    assert energy.totals.energy_high_j is None
    assert any("no upper end" in note for note in energy.notes)
    assert datasheet_power(hardware).limit_w is None


def test_a_limit_in_watts_is_no_power_model():
    cost = estimate("llama-2-7b", "nvidia-a100-sxm4-80gb", visual_tokens=0)
    with pytest.raises(InvalidInputError, match=r"a PowerModel.*power_limit_w"):
        estimate_energy(cost, 275)


def test_another_tools_convention_has_no_regimes():
    cost = estimate(
        "llama-2-7b", "nvidia_V100", visual_tokens=700, text_tokens=0,
        convention="llmviewer-2024-02", attention="eager",
    )  # fmt: skip
    with pytest.raises(InvalidInputError, match="llmviewer-2024-02"):
        estimate_energy(cost)


def test_a_device_of_ones_own_must_be_given():
    hardware = replace(get_hardware(A100), id="my-gpu")
    cost = estimate("llava-1.5-7b", hardware)
    with pytest.raises(UnknownHardwareError):
        estimate_energy(cost)
    assert estimate_energy(cost, hardware=hardware).totals.energy_high_j > 0


def windows(idle, memory, compute):
    mixes = [(0.0, 0.9, 0.1), (0.0, 0.1, 0.9), (0.5, 0.3, 0.2), (0.2, 0.2, 0.6), (0.0, 1.0, 0.0)]
    return [PowerWindow(i * idle + m * memory + c * compute, i, m, c, idle) for i, m, c in mixes]


@given(st.floats(20, 100), st.floats(101, 300), st.floats(101, 390))
def test_a_fit_finds_the_powers_that_made_the_windows(idle, memory, compute):
    found = fit_power_model(windows(idle, memory, compute), limit_w=400.0)
    assert found.idle_w == pytest.approx(idle)
    assert found.memory_w == pytest.approx(memory, rel=1e-6)
    assert found.compute_w == pytest.approx(compute, rel=1e-6)
    assert found.spread == pytest.approx(0.0, abs=1e-9)


def test_a_fit_stays_between_idle_and_the_limit():
    found = fit_power_model(
        [PowerWindow(395.0, 0, 0.5, 0.5, 60.0), PowerWindow(50.0, 0, 0.9, 0.1, 60.0)], limit_w=400.0
    )
    assert 60.0 <= found.memory_w <= 400.0
    assert 60.0 <= found.compute_w <= 400.0
    assert found.spread is None  # two windows say nothing of the spread


def test_windows_of_one_mix_give_one_busy_power():
    same = [PowerWindow(300.0 + step, 0, 0.3, 0.7, 60.0) for step in (-3, 0, 3)]
    found = fit_power_model(same, limit_w=400.0)
    assert found.memory_w == found.compute_w == pytest.approx(300.0)


def test_a_regime_that_never_ran_stays_unknown():
    found = fit_power_model([PowerWindow(300.0, 0, 0, 1.0, 60.0)] * 3, limit_w=400.0)
    assert found.memory_w is None
    cost = StageCost(kernels=1, time_s=1.0, time_low_s=1.0, time_high_s=1.0, memory_s=1.0)
    energy = stage_energy(cost, found)
    assert energy.energy_j is None
    assert (energy.energy_low_j, energy.energy_high_j) == (60.0, 400.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: PowerModel(idle_w=-1.0),
        lambda: PowerModel(compute_w=float("inf")),
        lambda: PowerModel(compute_w=500.0, limit_w=400.0),
        lambda: fit_power_model([]),
        lambda: fit_power_model([PowerWindow(300.0, 0, -1, 2, 60.0)]),
        lambda: fit_power_model([PowerWindow(300.0, 0, float("nan"), 1, 60.0)]),
    ],
)
def test_powers_that_no_board_draws_are_refused(make):
    with pytest.raises(InvalidInputError):
        make()


def test_shares_of_an_empty_stage_are_zero():
    assert regime_shares(StageCost()) == (0.0, 0.0, 0.0)
