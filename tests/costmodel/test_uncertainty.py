"""Intervals of sums: errors shared within a class, independent otherwise, and the host's."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel import estimate, sweep
from costmodel.calibration import Calibration
from costmodel.calibration.intervals import spread_at
from costmodel.calibration.pricing import Pricer
from costmodel.uncertainty import SHARED, Errors, Host, Part, errors_of

A100, H100, L40S = "nvidia-a100-sxm4-80gb", "nvidia-h100-sxm5-80gb", "nvidia-l40s"
GEMM, NORM = ("gemm", "bf16", "measured"), ("norm", "bf16", "measured")
WIDTHS = (1.0, 0.1, 0.2)


def test_one_op_has_the_interval_of_its_class():
    found = errors_of([(GEMM, WIDTHS, 2.0, 2.0, 4.0)])
    assert found.interval(2.0) == pytest.approx((1.8, 2.4))


def test_equal_ops_of_a_class_share_part_of_their_error():
    """Four ops of 1 s: half-width 0.1 sqrt(16 r + 4 (1 - r)), from 0.2 (independent) to 0.4 (one error)."""
    low, _ = errors_of([(GEMM, WIDTHS, 4.0, 4.0, 4.0)]).interval(4.0)
    assert 4 - low == pytest.approx(0.1 * math.sqrt(16 * SHARED + 4 * (1 - SHARED)))
    # What is not measured has one wrong parameter, and all of it errs alike.
    low, _ = errors_of([(("gemm", "bf16", "assumed"), WIDTHS, 4.0, 4.0, 4.0)]).interval(4.0)
    assert 4 - low == pytest.approx(0.4)


def test_classes_err_independently():
    one, two = (
        errors_of([(GEMM, WIDTHS, 1.0, 1.0, 1.0)]),
        errors_of([(NORM, WIDTHS, 1.0, 1.0, 1.0)]),
    )
    low, high = one.plus(two).interval(2.0)
    assert (2 - low, high - 2) == pytest.approx((0.1 * math.sqrt(2), 0.2 * math.sqrt(2)))


def test_sums_are_covered_as_the_model_says():
    """Draws of the model itself: 90 % of the sums of 30 ops of two classes lie inside."""
    rng = np.random.default_rng(0)
    times = {GEMM: rng.uniform(0.1, 1.0, 20), NORM: rng.uniform(0.1, 1.0, 10)}
    spread = 0.1
    q05, q95 = np.exp(-1.6449 * spread), np.exp(1.6449 * spread)
    found = errors_of(
        [
            (key, (1.0, 1 - q05, q95 - 1), t.sum(), t.sum(), (t * t).sum())
            for key, t in times.items()
        ]
    )
    whole = sum(t.sum() for t in times.values())
    low, high = found.interval(whole)
    sums = np.zeros(20000)
    for t in times.values():
        shared = rng.standard_normal((20000, 1)) * math.sqrt(SHARED)
        own = rng.standard_normal((20000, len(t))) * math.sqrt(1 - SHARED)
        sums += (t * np.exp(spread * (shared + own))).sum(axis=1)
    assert np.mean((sums >= low) & (sums <= high)) == pytest.approx(0.9, abs=0.015)


@given(device=st.floats(0.0, 10.0), kernels=st.integers(0, 5), spread=st.floats(0.0, 0.9))
def test_the_longer_of_host_and_device_says_how_far(device, kernels, spread):
    host = Host(1.0, 0.5, 2.0, 0.0, 0.0, 0.0, "assumed")
    errors = Errors(device, {GEMM: Part(device, device * spread, device * spread)})
    time, launch, found = host.launched(device, kernels, errors, False)
    low, high = found.interval(time)
    assert (time, launch) == (max(device, kernels), kernels)
    assert low == pytest.approx(max(device * (1 - spread), kernels / 2))
    assert high == pytest.approx(max(device * (1 + spread), kernels * 2))


@pytest.mark.parametrize("device", [A100, L40S])
@pytest.mark.parametrize("execution", ["fused", "hf-eager", "cuda-graph", "static-graph"])
def test_no_assumed_stage_is_certain(device, execution):
    cost = estimate("llava-1.5-7b", device, execution=execution, method="divprune", output_tokens=8)
    for stage in (*cost.stages.values(), cost.totals):
        assert stage.time_low_s <= stage.time_s <= stage.time_high_s
        assert stage.time_high_s > 1.1 * stage.time_low_s


def test_the_host_s_spread_is_in_a_host_bound_stage():
    given = {"execution": "hf-eager", "output_tokens": 4}
    decode = estimate("llava-1.5-7b", A100, **given).stages["decode"]
    assert decode.bound == "host"
    # 1,300 kernels a step at 17 us, 8 to 36 us.
    assert decode.time_s == pytest.approx(4 * 1300 * 17e-6, rel=1e-3)
    assert decode.time_high_s == pytest.approx(decode.time_s * 35.64 / 17, rel=1e-3)
    own = estimate("llava-1.5-7b", A100, host_s=40e-6, **given)
    assert own.stages["decode"].time_s == pytest.approx(4 * 1300 * 40e-6, rel=1e-3)
    assert own.inputs["host_s"] == 40e-6
    none = estimate("llava-1.5-7b", A100, host_s=0.0, **given)
    assert none.stages["decode"].bound == "memory"


def test_rows_of_a_sweep_have_the_interval_of_their_estimate():
    given = {"execution": "hf-eager", "host_s": [17e-6, 30e-6], "output_tokens": [0, 3]}
    table = sweep("llava-1.5-7b", A100, visual_tokens=[1, 577], batch_size=[1, 16], **given)
    assert len(table) == 16
    for row in table.to_dict("records"):
        numbers = ("visual_tokens", "batch_size", "output_tokens", "host_s")
        cost = estimate(
            "llava-1.5-7b", A100, execution="hf-eager", **{name: row[name] for name in numbers}
        )
        for name in ("time_s", "time_low_s", "time_high_s", "ideal_time_s"):
            assert row[name] == pytest.approx(cost.totals[name], rel=1e-9), name


def test_sums_of_a_layer_s_products_are_covered():
    """Seven products at one row count on A100 and H100: 90 % intervals hold 85 to 95 % of their sums."""
    table = pd.read_parquet(Path(__file__).parent / "calibration" / "data" / "gemm.parquet")
    inside, layers = 0, 0
    for (device, dtype), part in table.groupby(["device", "dtype"]):
        law = Calibration.load(A100 if "A100" in device else H100)
        found = law.lookup("gemm", dtype)
        # The law alone: the corrections of single matrices were fitted on some of these rows.
        pricer = Pricer("gemm", dtype, replace(found, shapes=()), law.device, alone=True)
        for m, rows in part.groupby("m"):
            if len(rows) >= 4:
                time = np.array(
                    [pricer.time_s(*map(float, r)) for r in rows[["m", "n", "k"]].values]
                )
                wide = time * spread_at(m, pricer.growth)
                term = (pricer.key, pricer.widths, time.sum(), wide.sum(), (wide**2).sum())
                sums = errors_of([term])
                low, high = sums.interval(float(time.sum()))
                inside += low <= rows["time_s"].sum() <= high
                layers += 1
    assert layers > 250
    assert 0.85 <= inside / layers <= 0.95
