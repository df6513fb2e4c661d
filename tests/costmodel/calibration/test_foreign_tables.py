"""Public tables in their own layouts; `data/foreign` holds ten rows of each."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from costmodel.calibration import fit_calibration
from costmodel.calibration.foreign import in_seconds
from costmodel.calibration.tables import group_points, read_tables
from costmodel.models import load_model
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
    for name, column in (("dense", "hidden_size, intermediate_size"), ("attention", "heads, kv_h")):
        with pytest.raises(CalibrationError, match=f"--model.*add the columns {column}") as caught:
            fit_calibration(HEADS / f"llmservingsim_{name}.csv", A100)
        assert "10 rows with times in us" in str(caught.value)
        assert "\n" not in str(caught.value)


#: The widths of Llama-3.1-8B.
WIDTHS = {
    "hidden_size": 4096, "intermediate_size": 14336, "heads": 32, "kv_heads": 8, "head_dim": 128,
}  # fmt: skip


def layers(**more):
    """Every layer that LLMServingSim times of a Llama, at two token counts."""
    names = ("embedding", "layernorm", "qkv_proj", "rotary_emb", "o_proj", "gate_up_proj", "act_fn",
             "down_proj", "final_layernorm", "sampler")  # fmt: skip
    rows = [(name, tokens, 20.0) for name in names for tokens in (1, 64)]
    return pd.DataFrame(rows, columns=["layer", "tokens", "time_us"]).assign(**more)


def test_llmservingsim_with_widths():
    frame = pd.read_csv(HEADS / "llmservingsim_attention.csv").assign(**WIDTHS)
    (group,), _ = group_points([("t", in_seconds("t", frame))], ())
    assert (group.op_class, len(group)) == ("attention_decode", 10)
    assert group.sizes["kv_len"].tolist()[:2] == [16, 32]
    assert group.time_s[0] == pytest.approx(9.31067e-6)
    groups, said = group_points([("t", in_seconds("t", layers(**WIDTHS)))], ())
    found = {group.op_class: group.sizes for group in groups}
    assert "LLMServingSim's layer, times in us: 20 rows became 16 points" in said[0]
    assert list(zip(found["gemm"]["n"], found["gemm"]["k"], strict=True))[::2] == [
        (6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336)
    ]  # fmt: skip
    assert {name: sizes["bytes"][0] for name, sizes in found.items() if name != "gemm"} == {
        "norm": 8 * 4096, "activation": 6 * 14336, "rope": 4 * 40 * 128, "embedding": 4 * 4096,
    }  # fmt: skip


def test_llmservingsim_of_a_model_that_is_named(tmp_path):
    path = tmp_path / "act.csv"
    path.write_bytes((HEADS / "llmservingsim_dense.csv").read_bytes())
    found = fit_calibration(path, "nvidia-rtx-4090", model="llava-next-mistral-7b", resamples=1)
    # 10 rows of SiLU and product over 1 to 10 tokens: launches, at 2.6 to 3.3 us.
    overhead = found.lookup("activation", "bf16").parameters["overhead_s"].value
    assert overhead == pytest.approx(3e-6, rel=0.2)
    (group,) = group_points(
        [("t", in_seconds("t", layers(), None, load_model("llava-next-mistral-7b").text))], ()
    )[0][:1]
    assert (group.op_class, len(group)) == ("gemm", 8)
    heads = pd.DataFrame({"layer": "lm_head", "sequences": [1, 2], "time_us": 20.0})
    ((group,), _) = group_points(
        [("t", in_seconds("t", heads, None, load_model("llava-next-mistral-7b").text))], ()
    )
    assert (group.sizes["m"].tolist(), group.sizes["n"][0]) == ([1, 2], 32064)
    with pytest.raises(CalibrationError, match="none of its layers is known"):
        in_seconds("t", layers(**WIDTHS).assign(layer="moe"))
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
