"""Weights that a benchmark leaves in the cache, and fits that start from another device's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from costmodel.calibration import Calibration, fit_calibration
from costmodel.calibration.device import device_of
from costmodel.calibration.gemm import warm_share
from costmodel.calibration.regression import law_of
from hardware_specs import get_hardware

TRUE = {
    "compute_efficiency": 0.7,
    "memory_efficiency": 0.75,
    "overhead_s": 4e-6,
    "exponent": 2.5,
    "cache_bandwidth_ratio": 5.0,
    "tail_overlap": 0.3,
    "epilogue_cost": 0.8,
    "split_overhead_s": 4e-6,
    "small_tile_loss": 0.1,
}


def products(hardware, values, count, copies=None, seed=0):
    """Products timed by a true law, their weights going round the cache in so many copies."""
    rng = np.random.default_rng(seed)
    widths = rng.choice([1024, 1536, 2048, 3072, 4096, 6144, 8192], (count, 2))
    rows = np.where(
        rng.random(count) < 0.5, rng.integers(1, 65, count), rng.integers(65, 4097, count)
    )
    sizes = {"m": rows, "n": widths[:, 0], "k": widths[:, 1]}
    held = {name: each.astype(float) for name, each in sizes.items()} | {"batch": np.ones(count)}
    if copies is not None:
        held["copies"] = np.full(count, float(copies))
    law = law_of("gemm", "fp16", "library", device_of(get_hardware(hardware)))
    time = replace(law, warm=copies is not None).time_s(values, held)
    noise = np.exp(0.02 * rng.standard_normal(count))
    return pd.DataFrame({**sizes, "time_s": time * noise, "dtype": "fp16"})


def error(found, frame):
    time = found.op_time_s("gemm", dtype="fp16", **{c: frame[c].to_numpy() for c in "mnk"})
    return np.abs(time / frame["time_s"] - 1).mean()


def test_predictions_are_cold_where_a_benchmark_s_weights_were_not():
    device = "nvidia-l40s"
    warm = products(device, TRUE, 160, copies=6)
    cold = products(device, TRUE, 200, seed=1)
    few = cold[cold["m"] <= 64]
    told = fit_calibration(warm.assign(weight_copies=6), device, resamples=1)
    untold = fit_calibration(warm, device, resamples=1)
    assert error(told, few) < 0.04
    assert error(told, few) < 0.5 * error(untold, few)


def test_the_share_in_the_cache_falls_from_one_to_none():
    device = device_of(get_hardware("nvidia-l40s"))
    side = np.sqrt(device.l2_bytes / 6 / 2 * np.array([0.1, 0.5, 0.75, 1.0, 4.0]))
    share = warm_share(device, "fp16", side, side, 6.0)
    assert share == pytest.approx([1, 1, 0.5, 0, 0], abs=1e-9)
    assert warm_share(device, "fp16", side, side, np.inf) == pytest.approx(np.zeros(5))


def test_a_fit_may_start_from_a_device_of_the_same_architecture():
    """Forty points of a card that errs as another does are predicted better beside it."""
    first, second = "nvidia-v100-sxm2-16gb", "nvidia-v100-pcie-16gb"
    other = fit_calibration(products(first, TRUE, 200), first, resamples=1)
    alike = products(second, {**TRUE, "memory_efficiency": 0.72}, 40, seed=3)
    unseen = products(second, {**TRUE, "memory_efficiency": 0.72}, 400, seed=4)
    alone = fit_calibration(alike, second, resamples=1)
    found = fit_calibration(alike, second, near=other, resamples=1)
    assert error(found, unseen) < error(alone, unseen)
    assert f"from {first}" in found.provenance("gemm", "fp16")


def test_what_the_table_lacks_is_transferred_twice_as_uncertain():
    second = "nvidia-v100-pcie-16gb"
    shipped = Calibration.load("nvidia-v100-sxm2-16gb").lookup("gemm", "fp32")
    found = fit_calibration(
        products(second, TRUE, 40), second, near="nvidia-v100-sxm2-16gb", resamples=1
    )
    held = found.lookup("gemm", "fp32")
    assert held.provenance.startswith("transferred from nvidia-v100-sxm2-16gb; fitted on")
    assert held.standing == "transferred"
    assert held.log_ratio(0.95) == pytest.approx(2 * shipped.log_ratio(0.95))
    assert held.residual is None
