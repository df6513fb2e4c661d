"""Fitting: known parameters recovered, outliers survived, bad tables refused or marked."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from costmodel.calibration import Calibration, fit_calibration
from costmodel.calibration.intervals import error_quantiles, fitted_growth, spread_at
from costmodel.calibration.regression import bootstrap, fit, law_of, matrix_folds, row_folds
from costmodel.calibration.tables import group_points
from hardware_specs import get_hardware
from hardware_specs.errors import CalibrationError
from hardware_specs.spec import Provenance

A100 = "nvidia-a100-sxm4-80gb"
NAME = "NVIDIA A100-SXM4-80GB"
DEVICE = Calibration.load(A100).device
TRUE = {
    "compute_efficiency": 0.78,
    "memory_efficiency": 0.7,
    "overhead_s": 4e-6,
    "exponent": 2.5,
    "cache_bandwidth_ratio": 3.5,
    "tail_overlap": 0.2,
    "epilogue_cost": 0.8,
    "split_overhead_s": 4e-6,
    "small_tile_loss": 0.15,
}
LAW = law_of("gemm", "bf16", "library", DEVICE)


def products(count=64, seed=0, noise=0.02, **columns):
    """Random products timed by the true law with log-normal noise."""
    rng = np.random.default_rng(seed)
    widths = [512, 768, 1024, 2048, 2560, 4096, 5120, 8192, 11008, 14336]
    frame = pd.DataFrame(
        {
            "m": np.unique(np.geomspace(1, 8192, 4 * count).astype(int))[-count:]
            if count > 200
            else rng.integers(1, 8193, count),
            "n": rng.choice(widths, count),
            "k": rng.choice(widths, count),
        }
    )
    frame["m"] = np.where(rng.random(count) < 0.3, rng.integers(1, 129, count), frame["m"])
    sizes = {c: frame[c].to_numpy(float) for c in "mnk"} | {"batch": np.ones(count)}
    frame["time_s"] = LAW.time_s(TRUE, sizes) * np.exp(noise * rng.standard_normal(count))
    return frame.assign(dtype="bf16", device=NAME, **columns)


def as_group(frame):
    return group_points([("", frame)], [NAME])[0][0]


def test_the_parameters_behind_synthetic_times_are_recovered():
    found = fit(LAW, as_group(products(600)))
    for name, tolerance in (
        ("compute_efficiency", 0.03), ("memory_efficiency", 0.05), ("overhead_s", 0.15),
    ):  # fmt: skip
        assert found[name] == pytest.approx(TRUE[name], rel=tolerance), name
    assert found["tail_overlap"] == pytest.approx(TRUE["tail_overlap"], abs=0.1)


def test_64_points_predict_unseen_ones_within_their_noise():
    calibration = fit_calibration(products(64), A100, resamples=20)
    unseen = products(500, seed=9)
    time = calibration.op_time_s("gemm", dtype="bf16", **{c: unseen[c].to_numpy() for c in "mnk"})
    error = np.abs(time / unseen["time_s"] - 1)
    assert error.mean() < 0.04
    low, high = calibration.op_interval("gemm", "bf16", rows=unseen["m"].to_numpy(float))
    inside = ((unseen["time_s"] >= low * time) & (unseen["time_s"] <= high * time)).mean()
    assert 0.8 < inside <= 0.99
    found = calibration.lookup("gemm", "bf16")
    assert found.points == 64
    assert found.kernels == "library"
    assert found.held_out.how == "16-fold cross-validation by weight matrix"
    efficiency = found.parameters["compute_efficiency"]
    assert efficiency.low < TRUE["compute_efficiency"] < efficiency.high
    # A convolution takes after the product, and says that it does.
    assert calibration.provenance("conv", "bf16").startswith("assumed: like gemm")


def test_a_few_interrupted_measurements_bend_nothing():
    frame = products(96)
    clean = fit(LAW, as_group(frame))
    frame.loc[[5, 33, 71], "time_s"] *= 20
    struck = fit(LAW, as_group(frame))
    for name in ("compute_efficiency", "memory_efficiency"):
        assert struck[name] == pytest.approx(clean[name], rel=0.05)


def test_more_noise_widens_both_intervals():
    quiet = fit_calibration(products(64, noise=0.01), A100, resamples=15)
    loud = fit_calibration(products(64, noise=0.15), A100, resamples=15)

    def widths(calibration):
        found = calibration.lookup("gemm", "bf16")
        parameter = found.parameters["compute_efficiency"]
        low, high = found.interval(0.9)
        return math.log(high / low), math.log(parameter.high / parameter.low)

    assert all(b > 2 * a for a, b in zip(widths(quiet), widths(loud), strict=True))


def test_repeats_count_once():
    frame = products(40)
    again = pd.concat([frame, frame.assign(time_s=frame["time_s"] * 1.5), frame])
    found = fit_calibration(again, A100, resamples=1).lookup("gemm", "bf16")
    assert found.points == 40


def test_fits_do_not_depend_on_chance_but_on_the_seed():
    first, again = (fit_calibration(products(40), A100, resamples=3, seed=1) for _ in range(2))
    assert first == again


def refused(table, hardware=A100, **options):
    with pytest.raises(CalibrationError) as caught:
        fit_calibration(table, hardware, resamples=1, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.iloc[:31], "31 usable points are too few, at least 32"),
        (lambda f: f.assign(m=256), "m takes 1 value (256)"),
        (lambda f: f.assign(time_s=f["time_s"].where(f.index != 3, -1e-5)), "1 of 64 values of"),
        (lambda f: f.assign(time_s=f["time_s"].where(f.index != 3)), "are NaN (first in row 3)"),
        (lambda f: f.assign(time_s=f["time_s"].where(f.index != 3, np.inf)), "are infinite"),
        (lambda f: f.assign(time_s=0.0), "64 of 64 values of 'time_s' are not positive"),
        (lambda f: f.assign(n=0), "'n' are not positive"),
        (lambda f: f.assign(time_s="fast"), "holds more than numbers"),
        (lambda f: f.assign(device="NVIDIA H100 80GB HBM3"), "measured on 'NVIDIA H100 80GB HBM3'"),
        (lambda f: f.assign(time_s=f["time_s"] / 1e3), "above the datasheet peak"),
        (lambda f: f.assign(time_s=f["time_s"] * 1e3), "are the times in seconds?"),
        (lambda f: f.assign(dtype="fp8"), "no fp8 peak"),
        (lambda f: f.assign(dtype="posit8"), "64 points in 'posit8' left out"),
        (lambda f: f.drop(columns="time_s"), "needs time_s"),
        (lambda f: f.drop(columns="k"), "gemm: m, n, k"),
        (lambda f: f.assign(op_class="warp", bytes=1.0), "no such op class"),
        (lambda f: f.iloc[:0], "nothing could be fitted"),
    ],
)
def test_what_cannot_be_fitted_is_refused_with_its_reason(change, words):
    assert words in refused(change(products(64)))


def test_a_class_that_fails_is_marked_where_another_can_be_fitted():
    table = pd.concat([products(64), products(20, seed=3).assign(dtype="sq")])
    found = fit_calibration(table, A100, resamples=1)
    assert any(w.startswith("gemm in w8a8: 20 usable points are too few") for w in found.warnings)
    assert not found.lookup("gemm", "w8a8").measured
    assert found.lookup("gemm", "bf16").measured


def test_one_dtype_only_is_marked():
    found = fit_calibration(products(64), A100, resamples=1)
    (remark,) = [w for w in found.warnings if "only" in w]
    assert remark.startswith("GEMMs in bf16 only: ")
    assert "w4a16" in remark
    assert any("not measured, parameters assumed: " in w for w in found.warnings)


def test_narrow_products_and_impossible_points_are_left_out_and_marked():
    frame = products(64)
    frame.loc[:5, "n"] = 64
    frame.loc[10, "time_s"] /= 40
    frame.loc[10, ["m", "n", "k"]] = 8192
    found = fit_calibration(frame, A100, resamples=1)
    assert any("6 points with n or k below 256 left out" in w for w in found.warnings)
    assert any("1 points at up to" in w for w in found.warnings)
    assert found.lookup("gemm", "bf16").points == 57


@pytest.mark.parametrize(
    "name",
    ["A100-SXM4-80GB", "nvidia a100 sxm4 80gb", "NVIDIA_A100-SXM4-80GB", A100, "A100 SXM4 80GB"],
)
def test_the_devices_name_with_or_without_vendor(name):
    found = fit_calibration(products(40).assign(device=name), A100, resamples=1)
    assert found.lookup("gemm", "bf16").points == 40


@pytest.mark.parametrize(
    "name",
    [
        "A100-SXM4-40GB",
        "A100",
        "A100-PCIE-40GB",
        "NVIDIA A100 80GB PCIe",
        "AMD Radeon Graphics",
        "",
    ],
)
def test_a_near_name_in_a_table_is_another_device(name):
    assert f"measured on {name!r}" in refused(products(40).assign(device=name))


@pytest.mark.parametrize(
    ("name", "hardware", "remark"),
    [
        ("AMD Instinct MI300X OAM", "amd-mi300x", None),
        ("AMD Radeon Graphics", "amd-mi300x", "names no device but 'AMD Radeon Graphics'"),
        (None, "amd-mi300x", "names no device but ''"),
        ("Orin (nvgpu)", "nvidia-jetson-orin-nx-16gb", None),
    ],
)
def test_names_that_several_devices_share(name, hardware, remark):
    _, remarks = group_points(
        [("a table", products(40).assign(device=name))], get_hardware(hardware).device_names
    )
    assert [r for r in remarks if "no device" in r] == [
        r for r in remarks if remark is not None and remark in r
    ]
    assert (remark is None) == (not any("no device" in r for r in remarks))


def test_other_names_of_the_device_are_accepted_when_given():
    frame = products(40).assign(device="A100 in the cellar")
    assert "A100 in the cellar" in refused(frame)
    fit_calibration(frame, A100, device_names=["a100 in the cellar"], resamples=1)


def test_attention_streams_and_host_rows_of_one_mixed_table():
    rng = np.random.default_rng(1)
    q = rng.integers(64, 4096, 40)
    law = law_of("attention_prefill", "bf16", "flash-128", DEVICE)
    truth = {n: p.median for n, p in law.priors.items()}
    ones = np.ones(40)
    sizes = {
        "batch": ones, "q_len": q, "kv_len": q, "heads": 32 * ones, "kv_heads": 8 * ones,
        "head_dim": 128 * ones, "causal": ones,
    }  # fmt: skip
    attention = pd.DataFrame(
        {
            "op_class": "attention_prefill", "dtype": "bf16", "batch_size": 1, "seq_len": q,
            "kv_len": q, "heads": 32, "kv_heads": 8, "head_dim": 128, "causal": True,
            "time_s": law.time_s(truth, {k: np.asarray(v, float) for k, v in sizes.items()}),
        }
    )  # fmt: skip
    size = np.geomspace(1e6, 1e9, 12)
    copies = pd.DataFrame(
        {"op_class": "copy", "dtype": "bf16", "bytes": size, "time_s": 3e-6 + size / 1.5e12}
    )
    host = pd.DataFrame(
        {
            "op_class": "host", "dtype": "any", "name": ["launch", "module_kernel", "synchronise"],
            "time_s": [3e-6, 7e-6, 2e-5],
        }
    )  # fmt: skip
    found = fit_calibration(pd.concat([attention, copies, host]), A100, resamples=2)
    prefill = found.lookup("attention_prefill", "bf16")
    assert prefill.kernels == "flash-128"
    assert prefill.held_out.mape < 0.02
    assert found.provenance("attention_encoder", "bf16").startswith("assumed: like attention_pre")
    # 1 GB at 1.5 TB/s.
    assert found.op_time_s("copy", dtype="bf16", bytes=1e9) == pytest.approx(6.7e-4, rel=0.03)
    assert found.host_s_per_kernel == 7e-6
    assert found.host_sync_s == 2e-5
    assert found.notes["host_s_per_kernel"].startswith("measured")


def test_few_attention_points_move_efficiencies_only():
    frame = pd.DataFrame(
        {
            "dtype": "bf16", "batch_size": 1, "seq_len": [577, 1154, 2308, 4616, 9232],
            "heads": 16, "head_dim": 64, "causal": False,
            "time_s": [3e-5, 8e-5, 2.4e-4, 8e-4, 3e-3],
        }
    )  # fmt: skip
    found = fit_calibration(frame, A100, resamples=2).lookup("attention_encoder", "bf16")
    assert found.points == 5
    assert found.parameters["compute_efficiency"].low is not None
    assert found.parameters["score_cost"].low is None


def test_bootstrap_intervals_hold_the_fit():
    group = as_group(products(48))
    values = fit(LAW, group)
    rng = np.random.default_rng(0)
    for name, (low, high) in bootstrap(LAW, group, values, 8, rng).items():
        assert low <= values[name] <= high


def test_folds_share_every_point_once_and_matrices_whole():
    group = as_group(products(40))
    rng = np.random.default_rng(0)
    for share, sizes in ((row_folds, {10}), (matrix_folds, None)):
        parts = share(group, 4, rng)
        assert sorted(np.concatenate(parts).tolist()) == list(range(40))
        assert sizes is None or {len(part) for part in parts} == sizes
    pairs = [set(zip(group.sizes["n"][p], group.sizes["k"][p], strict=True)) for p in parts]
    assert not set.intersection(*pairs)
    assert sum(map(len, pairs)) == len(set.union(*pairs))


def test_quantiles_of_known_ratios():
    # Nine ratios stand at levels 0.1 ... 0.9; the median is the fifth.
    quantiles = dict(error_quantiles(np.arange(-4, 5) / 10))
    assert quantiles[0.1] == pytest.approx(-0.4)
    assert quantiles[0.5] == 0.0
    # Beyond: a normal tail, -0.4 x 1.645 / 1.282.
    assert quantiles[0.05] == pytest.approx(-0.4 * 1.6449 / 1.2816, rel=1e-3)
    assert quantiles[0.95] == pytest.approx(-quantiles[0.05])


def test_an_unknown_device_is_named():
    with pytest.raises(LookupError, match="nvidia-a1000"):
        fit_calibration(products(64), "nvidia-a1000")


def test_a_device_measured_too_slow_is_raised_to_its_products():
    spec = get_hardware("cpu-generic-avx2-8c")
    key = next(k for k in spec.peaks if k.startswith("fp32"))
    slow = replace(
        spec,
        peaks={key: 1e9},
        device_names=(),
        provenance={key: Provenance(("measured",), "measured", "")},
    )
    m = np.repeat([1, 16, 64, 128, 256, 512, 1024, 2048], 5)
    n = np.tile([256, 512, 1024, 2048, 4096], 8)
    frame = pd.DataFrame({"dtype": "fp32", "device": "some CPU", "m": m, "n": n, "k": 512})
    moved = 4.0 * (m * 512 + 512 * n + m * n)
    slower = np.maximum(2.0 * m * n * 512 / 1e11, moved / (0.8 * spec.bandwidth_bytes_per_s))
    frame["time_s"] = 5e-6 + slower
    found = fit_calibration(frame, slow, resamples=1)
    assert found.device.peaks["fp32"] == pytest.approx(1e11, rel=0.1)
    assert any("raised to the best" in w for w in found.warnings)
    assert any("no name to check by" in w for w in found.warnings)
    assert found.lookup("gemm", "fp32").held_out.mape < 0.1


@pytest.mark.parametrize("growth", [0.0, 0.3, 0.6])
def test_how_errors_grow_as_rows_get_fewer_is_found(growth):
    rng = np.random.default_rng(0)
    rows = rng.choice([1.0, 64.0, 256.0, 1024.0, 4096.0], 3000)
    ratios = 0.1 + rng.laplace(scale=0.03, size=len(rows)) * spread_at(rows, growth)
    assert fitted_growth(ratios, rows) == pytest.approx(growth, abs=0.05)


def test_intervals_of_few_rows_are_as_much_wider_as_their_class_says():
    found = Calibration.load(A100)
    growth = found.lookup("gemm", "w4a16").growth
    rows = np.array([1.0, 16.0, 100.0, 1024.0, 5000.0])
    low, high = np.log(found.op_interval("gemm", "w4a16", rows=rows))
    assert (high - low) / (high - low)[3] == pytest.approx(spread_at(rows, growth))
    for m, ends in zip(rows, np.exp([low, high]).T, strict=True):
        assert found.op_interval("gemm", "w4a16", rows=float(m)) == pytest.approx(tuple(ends))


def test_decode_attention_of_an_rtx_4090_errs_less_than_a_tenth():
    held = Calibration.load("nvidia-rtx-4090").lookup("attention_decode", "bf16").held_out
    assert (held.points, held.mape < 0.1) == (99, True)
