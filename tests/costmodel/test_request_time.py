"""What the host does once per request: a stage of its own, part of the time to the first token."""

from __future__ import annotations

import json

import pytest

from costmodel import estimate, sweep
from costmodel.energy import estimate_energy
from costmodel.ratios import ratio_interval
from costmodel.timeline import timeline
from vlm_roofline.cli import main

MODEL, DEVICE = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"


@pytest.mark.parametrize("calibration", ["auto", "none"])
def test_it_is_added_to_the_first_token_and_to_nothing_else(calibration):
    given = {"output_tokens": 8, "calibration": calibration}
    without = estimate(MODEL, DEVICE, **given)
    cost = estimate(MODEL, DEVICE, request_s=0.02, **given)
    assert "request" not in without.stages
    assert next(iter(cost.stages)) == "request"
    assert cost.stages["request"].time_s == cost.stages["request"].host_s == 0.02
    for name in ("time_s", "ttft_s", "time_low_s", "time_high_s"):
        expected = getattr(without.totals, name) + 0.02
        assert getattr(cost.totals, name) == pytest.approx(expected), name
    assert cost.totals.tpot_s == without.totals.tpot_s
    assert cost.totals.kernels == without.totals.kernels
    assert cost.to_dict()["stages"]["request"]["time_s"] == 0.02


def test_a_sweep_says_what_estimate_says():
    given = {"visual_tokens": [64, 576], "batch_size": [1, 8]}
    table = sweep(MODEL, DEVICE, request_s=0.02, **given)
    for row in table.to_dict("records"):
        one = estimate(
            MODEL,
            DEVICE,
            visual_tokens=row["visual_tokens"],
            batch_size=row["batch_size"],
            request_s=0.02,
        )
        assert row["ttft_s"] == pytest.approx(one.totals.ttft_s)
        assert row["time_high_s"] == pytest.approx(one.totals.time_high_s)


def test_it_brings_ratios_nearer_to_one():
    plain, kept = ({"visual_tokens": n} for n in (576, 64))
    bare = ratio_interval(
        estimate(MODEL, DEVICE, **kept), estimate(MODEL, DEVICE, **plain), "ttft_s"
    )
    long = [estimate(MODEL, DEVICE, request_s=1.0, **each) for each in (kept, plain)]
    with_it = ratio_interval(*long, "ttft_s")
    assert bare.value < with_it.value < 1
    assert bare.high < with_it.low <= with_it.value


def test_energy_timeline_and_command_know_it(capsys):
    cost = estimate(MODEL, DEVICE, request_s=0.02)
    assert estimate_energy(cost).stages["request"].energy_j in (0, None)
    assert timeline(cost)
    assert main(["estimate", MODEL, "-d", DEVICE, "--request-ms", "20"]) == 0
    assert "request" in capsys.readouterr().out
    assert main(["estimate", MODEL, "-d", DEVICE, "--request-ms", "20", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stages"]["request"]["time_s"] == 0.02
