from __future__ import annotations

from dataclasses import replace

import pytest

from costmodel.energy import PowerModel
from profiling import reconcile
from profiling.records.measurement import TOTAL
from profiling.records.readings import EnergyWindow


def with_energy(record, **joules):
    windows = tuple(
        EnergyWindow(
            stage=stage, method="nvml_counter", energy_j=value, counter_j=value,
            integral_j=value * 1.01, power_w=300.0, idle_power_w=60.0, window_s=1.5,
            repetitions=100,
        )
        for stage, value in joules.items()
    )  # fmt: skip
    return replace(record, energy=windows)


def records(lab, law):
    """300 W whatever runs: the energy is 300 x the predicted time."""
    found = []
    for tokens in (1, 64, 144, 576):
        record = lab.measured(lab.configuration(visual_tokens=tokens), calibration=law)
        found.append(
            with_energy(
                record,
                total=300.0 * (record.stages[TOTAL].median_s or 0),
                prefill=300.0 * (record.stages["prefill"].median_s or 0),
            )
        )
    return found


def test_constant_power_is_found_and_predicts_every_window(lab):
    law = lab.law_of()
    result = reconcile(records(lab, law), law)
    assert len(result.energy) == 8
    for row in result.energy:
        assert row["predicted_j"] == pytest.approx(row["measured_j"], rel=1e-6)
        assert row["low_j"] <= row["predicted_j"] <= row["high_j"]
    assert result.summary["energy"]["mape"] == pytest.approx(0.0, abs=1e-6)
    assert result.power.idle_w == 60.0
    assert result.power.windows == 8


def test_no_window_explains_itself(lab):
    law = lab.law_of()
    record = records(lab, law)[0]
    only = replace(record, energy=record.energy[:1])
    (row,) = reconcile([only], law).energy
    assert row["predicted_j"] is None  # there is no other window
    assert row["high_j"] is not None


def test_given_powers_are_used(lab):
    law = lab.law_of()
    power = PowerModel(60.0, 200.0, 200.0, 400.0, spread=0.1, windows=5)
    row = reconcile(records(lab, law), law, power=power).energy[0]
    assert row["predicted_j"] == pytest.approx(row["measured_j"] * 2 / 3)


def test_more_than_the_board_can_draw_is_flagged(lab):
    law = lab.law_of()
    record = with_energy(lab.measured(calibration=law), total=1e3)  # 100 runs in 1.5 s: 67 kW
    (row,) = reconcile([record], law).energy
    assert any("above the board's 400 W" in flag for flag in row["flags"])


def test_two_ways_that_disagree_are_flagged(lab):
    law = lab.law_of()
    record = records(lab, law)[0]
    window = replace(record.energy[0], integral_j=2 * record.energy[0].energy_j)
    (row,) = reconcile([replace(record, energy=(window,))], law).energy
    assert any("differ by -50%" in flag for flag in row["flags"])
