"""Public tables in their own layouts; `data/foreign` holds ten rows of each."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from costmodel.calibration import fit_calibration
from costmodel.calibration.foreign import in_seconds
from costmodel.calibration.tables import group_points, read_tables
from hardware_specs.errors import CalibrationError

A100 = "nvidia-a100-sxm4-80gb"
HEADS = Path(__file__).parent / "data" / "foreign"


def read(name):
    ((name, frame),) = read_tables(HEADS / name)
    table = in_seconds(name, frame)
    groups, remarks = group_points([(name, table)], ["NVIDIA A100-SXM4-80GB"])
    return {(g.op_class, g.dtype): g for g in groups}, remarks[0]


def test_products_of_aiconfigurator():
    groups, said = read("aiconfigurator_gemm.parquet")
    assert list(groups) == [("gemm", "bf16")]
    group = groups["gemm", "bf16"]
    assert [group.sizes[c][0] for c in "mnk"] == [81, 3584, 8192]
    assert group.time_s[0] == pytest.approx(5.632e-5)
    assert said.endswith(
        "AIConfigurator's products, times in ms: 10 rows became 10 points: 10 gemm"
    )


def test_attention_of_aiconfigurator():
    groups, said = read("aiconfigurator_ctx.parquet")
    group = groups["attention_prefill", "bf16"]
    assert {name: values[0] for name, values in group.sizes.items()} == {
        "batch": 4, "q_len": 16384, "kv_len": 16384, "heads": 96, "kv_heads": 1, "head_dim": 128,
        "causal": 1,
    }  # fmt: skip
    assert group.time_s[0] == pytest.approx(0.125228, rel=1e-5)
    assert "times in ms" in said
    found = fit_calibration(HEADS / "aiconfigurator_ctx.parquet", A100, resamples=1)
    # 4 x 4 x 96 x 128 x 16384^2 / 2 FLOP in 125 ms is 211 TFLOP/s, 68 % of the peak.
    efficiency = found.lookup("attention_prefill", "bf16").parameters["compute_efficiency"].value
    assert 0.6 < efficiency < 0.85
    assert any("AIConfigurator" in each for each in found.warnings)


def test_a_layer_of_vidur():
    groups, said = read("vidur_mlp.csv")
    assert {(c, len(g)) for (c, _), g in groups.items()} == {
        ("gemm", 40), ("norm", 10), ("rope", 10), ("activation", 10), ("residual", 10),
        ("embedding", 10),
    }  # fmt: skip
    group = groups["gemm", "fp16"]
    # Phi-2: 32 heads of 80 values, 2560 wide, 10240 inside, no gate.
    shapes = set(zip(group.sizes["n"], group.sizes["k"], strict=True))
    assert shapes == {(7680, 2560), (2560, 2560), (10240, 2560), (2560, 10240)}
    assert group.time_s[0] == pytest.approx(0.651e-3)
    assert "Vidur's layer, times in ms: 10 rows became 90 points" in said


def test_llmservingsim_says_no_widths():
    for name, column in (("dense", "columns n, k"), ("attention", "heads, kv_heads, head_dim")):
        with pytest.raises(CalibrationError, match=column) as caught:
            fit_calibration(HEADS / f"llmservingsim_{name}.csv", A100)
        assert "10 rows with times in us" in str(caught.value)


def test_llmservingsim_with_widths():
    frame = pd.read_csv(HEADS / "llmservingsim_attention.csv")
    frame = frame.assign(heads=32, kv_heads=8, head_dim=128)
    (group,), _ = group_points([("t", in_seconds("t", frame))], ())
    assert (group.op_class, len(group)) == ("attention_decode", 10)
    assert group.sizes["kv_len"].tolist()[:2] == [16, 32]
    assert group.time_s[0] == pytest.approx(9.31067e-6)
    dense = pd.DataFrame({"layer": "qkv_proj", "tokens": [1, 2], "time_us": 20.0, "n": 6, "k": 4})
    (group,), _ = group_points([("t", in_seconds("t", dense))], ())
    assert (group.op_class, group.sizes["m"].tolist()) == ("gemm", [1, 2])


GEMM = pd.DataFrame({"m": [1, 2], "n": 4, "k": 8, "dtype": "bf16"})


@pytest.mark.parametrize(
    ("columns", "unit"),
    [
        ({"time_ms": 0.02}, None),
        ({"time_us": 20.0}, None),
        ({"time_ns": 20000}, None),
        ({"time": 0.02, "time_unit": "ms"}, None),
        ({"time": [20.0, 0.02], "time_unit": ["us", "ms"]}, None),
        ({"time": 20.0}, "us"),
    ],
)
def test_a_stated_unit(columns, unit):
    (group,), _ = group_points([("t", in_seconds("t", GEMM.assign(**columns), unit))], ())
    assert group.time_s == pytest.approx(2e-5)


@pytest.mark.parametrize(
    ("columns", "unit", "words"),
    [
        ({"time": 20.0}, None, "needs time_s"),
        ({"latency": 20.0}, None, "needs time_s"),
        ({"time": 20.0}, "hours", "unknown time unit 'hours'"),
        ({"time": 20.0, "time_unit": ["us", "h"]}, None, "1 of 2 values of 'time_unit'"),
        ({"time_us": ["20", "fast"]}, None, "column 'time_us' holds more than numbers: 1 of 2"),
    ],
)
def test_an_unknown_unit_is_refused(columns, unit, words):
    with pytest.raises(CalibrationError, match=words):
        fit_calibration(GEMM.assign(**columns), A100, time_unit=unit)
