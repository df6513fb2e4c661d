"""What an answer says of its times."""

from __future__ import annotations

import numpy as np
import pytest

from costmodel import estimate, sweep
from costmodel.calibration import Calibration, best_calibration
from hardware_specs import get_hardware

A100, L40S, TPU = "nvidia-a100-sxm4-80gb", "nvidia-l40s", "google-tpu-v5e"


def test_the_best_available_is_the_default():
    by_default, named = (
        estimate("llava-1.5-7b", A100, **given) for given in ({}, {"calibration": A100})
    )
    assert by_default.totals == named.totals
    assert by_default.to_dict()["calibration"]["kind"] == "shipped"
    assert estimate("llava-1.5-7b", L40S).calibration.kind == "generic"
    for word in ("none", None):
        ideal = estimate("llava-1.5-7b", A100, calibration=word)
        assert ideal.to_dict()["calibration"] == {
            "name": "none", "kind": "none", "measured": None, "transferred": None, "assumed": None,
        }  # fmt: skip
        assert ideal.totals.time_s == by_default.totals.ideal_time_s < by_default.totals.time_s


def test_generic_is_never_called_the_device_s():
    cost = estimate("llava-1.5-7b", L40S)
    found = cost.to_dict()["calibration"]
    assert (found["name"], found["kind"], found["assumed"]) == ("generic", "generic", 1.0)
    assert cost.inputs["calibration"] == "generic"
    assert "no calibration of this device" in cost.calibration.sentence()
    row = sweep("llava-1.5-7b", L40S, visual_tokens=[576]).iloc[0]
    assert (row["calibration"], row["calibration_kind"], row["assumed_share"]) == (
        "generic", "generic", 1.0,
    )  # fmt: skip


def test_shares_add_up_and_a_sweep_has_them():
    for execution in ("fused", "hf-eager"):
        found = estimate("llava-1.5-7b", A100, execution=execution, output_tokens=8).calibration
        assert found.measured + found.transferred + found.assumed == pytest.approx(1.0)
        table = sweep("llava-1.5-7b", A100, execution=execution, output_tokens=[0, 8])
        assert np.allclose(
            table[["measured_share", "transferred_share", "assumed_share"]].iloc[1],
            [found.measured, found.transferred, found.assumed],
        )
    ideal = sweep("llava-1.5-7b", A100, calibration="none")
    assert ideal["calibration_kind"].tolist() == ["none"]
    assert ideal["measured_share"].isna().all()


def test_what_the_host_holds_is_the_host_s():
    found = estimate("llava-1.5-7b", A100, execution="hf-eager", output_tokens=64).calibration
    assert found.missing[0][0] == "host"
    assert found.assumed > 0.5
    assert "--host-us" in found.sentence()
    told = estimate(
        "llava-1.5-7b", A100, execution="hf-eager", output_tokens=64, host_s=20e-6
    ).calibration
    assert told.measured > 0.5


def test_an_arithmetic_that_no_law_knows_leaves_the_ideal():
    assert best_calibration(get_hardware(L40S), {("gemm", "w7a7")}) is None
    assert best_calibration(get_hardware(A100), {("gemm", "bf16")}) is Calibration.load(A100)
    # Bound once: every caller asks the same tables.
    spec = get_hardware(L40S)
    assert best_calibration(spec) is best_calibration(spec)


def test_the_command_says_it(capsys):
    from vlm_roofline.cli import main

    line = f"estimate llava-1.5-7b -d {A100} --execution hf-eager --output-tokens 64"
    assert main(line.split()) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "time: the shipped calibration of nvidia-a100-sxm4-80gb" in text
    assert "host: 17.000 us per kernel (--host-us)" in text
    assert main(f"{line} --host-us 30 --calibration none".split()) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "time: the ideal roofline" in text
    assert "host: 30.000 us" in text
    assert main(f"{line} --host-us x".split()) == 2
