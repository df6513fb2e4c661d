"""Ratios of two estimates: the errors they share cancel."""

from __future__ import annotations

from dataclasses import replace

import pytest

from costmodel import Calibration, estimate
from costmodel.ratios import ratio_interval
from hardware_specs.errors import UnknownNameError

A100 = "nvidia-a100-sxm4-80gb"


def priced(visual_tokens=576, **given):
    return estimate("llava-1.5-7b", A100, visual_tokens=visual_tokens, output_tokens=16, **given)


@pytest.mark.parametrize("execution", ["fused", "hf-eager", "static-graph"])
@pytest.mark.parametrize("calibration", ["none", "generic", A100])
@pytest.mark.parametrize("quantity", ["time_s", "ttft_s", "tpot_s", "prefill_s"])
def test_a_run_is_itself_for_certain(execution, calibration, quantity):
    cost = priced(execution=execution, calibration=calibration)
    again = priced(execution=execution, calibration=calibration)
    assert ratio_interval(cost, again, quantity) == pytest.approx((1.0, 1.0, 1.0))


@pytest.mark.parametrize("calibration", ["generic", A100])
def test_a_ratio_is_surer_than_its_sides(calibration):
    full, half = priced(calibration=calibration), priced(288, calibration=calibration)
    value, low, high = ratio_interval(half, full, "ttft_s")
    assert value == half.totals.ttft_s / full.totals.ttft_s
    assert low <= value <= high
    apart = full.totals.time_high_s / full.totals.time_low_s
    assert 1 < high / low < apart**0.5


@pytest.mark.parametrize("given", [{}, {"precision": "w4a16", "visual_tokens": 1}])
def test_the_interval_of_one_side_is_the_estimate_s(given):
    """Against a run without errors (a host of 0 s beside ideal kernels) a ratio is as wide as the time."""
    from costmodel.ratios import _drawn

    cost = priced(**given)
    drawn = _drawn(cost, "time_s")
    inside = (drawn >= cost.totals.time_low_s) & (drawn <= cost.totals.time_high_s)
    assert inside.mean() == pytest.approx(0.9, abs=0.04)


def test_a_host_bound_decode_does_not_get_faster():
    """Both sides wait for the same host: pruning saves nothing, and that is nearly certain."""
    full, half = priced(execution="hf-eager"), priced(144, execution="hf-eager")
    _, low, high = ratio_interval(half, full, "tpot_s")
    assert high == pytest.approx(1.0, abs=1e-6)
    assert low > 0.9


def test_other_quantities_are_refused():
    with pytest.raises(UnknownNameError, match="did you mean ttft_s"):
        ratio_interval(priced(), priced(), "ttft")


def test_a_class_whose_errors_are_all_alike_adds_none():
    held = Calibration.load(A100)
    key = "gemm", "bf16"
    assert held.classes[key].growth
    level = tuple((each, 0.0) for each, _ in held.classes[key].quantiles)
    alike = replace(
        held, classes={**held.classes, key: replace(held.classes[key], quantiles=level)}
    )
    found = ratio_interval(priced(64, calibration=alike), priced(calibration=alike), "ttft_s")
    assert found.low <= found.value <= found.high
