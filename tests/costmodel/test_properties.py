"""What must hold for any scenario."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel import estimate, sweep
from costmodel.precision import parse_precision
from costmodel.questions.sweep_columns import COLUMNS, SHARES
from costmodel.questions.sweeps import sweep_chunks
from costmodel.request import names_of
from hardware_specs.errors import InvalidInputError, UnknownNameError

A100 = "nvidia-a100-sxm4-80gb"
BYTES = (
    "weight_bytes",
    "kv_read_bytes",
    "kv_write_bytes",
    "activation_read_bytes",
    "activation_write_bytes",
)
scenarios = st.fixed_dictionaries(
    {
        "visual_tokens": st.integers(0, 3000),
        "text_tokens": st.integers(1, 500),
        "batch_size": st.integers(1, 64),
        "output_tokens": st.integers(0, 200),
    }
)
settings_of_plan = st.sampled_from(
    [
        {},
        {"execution": "hf-eager"},
        {"execution": "static-graph"},
        {"execution": "hf-eager", "calibration": "none"},
        {"calibration": "generic"},
        {"execution": "cuda-graph", "attention": "eager", "vision_layers": "useful"},
        {"precision": "w4a16"},
        {"precision": "w8a8", "logits": "all"},
    ]
)


@settings(max_examples=60, deadline=None)
@given(scenarios, settings_of_plan)
def test_sweep_is_estimate(scenario: dict, plan: dict) -> None:
    cost = estimate("llava-1.5-7b", A100, **scenario, **plan)
    # A second row, so that both are parts of arrays.
    given_ = scenario | {"visual_tokens": [scenario["visual_tokens"], 64]} | plan
    row = sweep("llava-1.5-7b", A100, stage_columns=True, **given_).iloc[0]
    for name in names_of("subject", "setting"):
        assert (None if pd.isna(row[name]) else row[name]) == cost.inputs[name]
    for name in COLUMNS:
        if name in ("bound", "fits", "model_weight_bytes", "tpot_s"):
            continue
        if name in SHARES:
            known = getattr(cost.calibration, name.removesuffix("_share"))
            assert row[name] == pytest.approx(known, abs=1e-12) or known is None, name
            continue
        source = cost.totals if hasattr(cost.totals, name) else cost.memory
        assert row[name] == pytest.approx(getattr(source, name), rel=1e-12), name
    for stage, stage_cost in cost.stages.items():
        assert row[f"{stage}_time_s"] == pytest.approx(stage_cost.time_s, rel=1e-12)
        assert row[f"{stage}_flops"] == stage_cost.flops
        bound = row[f"{stage}_bound"]
        assert bound == stage_cost.bound or (stage_cost.bound is None and bound != bound)
    assert bool(row["fits"]) == cost.memory.fits
    if scenario["output_tokens"]:
        assert row["tpot_s"] == pytest.approx(cost.totals.tpot_s)
    else:
        assert np.isnan(row["tpot_s"])
        assert cost.totals.tpot_s is None


@settings(max_examples=40, deadline=None)
@given(scenarios, settings_of_plan)
def test_bytes_by_kind_add_up(scenario: dict, plan: dict) -> None:
    cost = estimate("llava-1.5-7b", A100, **scenario, **plan)
    for stage in cost.stages.values():
        assert stage.hbm_bytes == pytest.approx(sum(stage[name] for name in BYTES))
        assert stage.time_low_s <= stage.time_s <= stage.time_high_s * (1 + 1e-12)
        assert stage.executed_flops >= 0
    assert cost.totals.flops == sum(stage.flops for stage in cost.stages.values())
    assert cost.totals.time_s == pytest.approx(sum(s.time_s for s in cost.stages.values()))
    assert cost.totals.ttft_s == pytest.approx(cost.totals.time_s - cost.stages["decode"].time_s)
    ops = cost.ops
    assert sum(op.flops for op in ops) == cost.totals.flops
    assert sum(op.kernels for op in ops) == cost.totals.kernels
    # Under a plan that the host launches a stage may wait for it.
    assert sum(op.time_s for op in ops) == pytest.approx(cost.totals.device_s)
    assert cost.totals.device_s <= cost.totals.time_s * (1 + 1e-12)


@settings(max_examples=30, deadline=None)
@given(scenarios, st.integers(2, 8))
def test_linear_in_batch(scenario: dict, factor: int) -> None:
    one = estimate("llava-1.5-7b", A100, **scenario)
    many = estimate(
        "llava-1.5-7b", A100, **{**scenario, "batch_size": factor * scenario["batch_size"]}
    )
    assert many.totals.flops == factor * one.totals.flops
    assert many.memory.kv_cache_bytes == factor * one.memory.kv_cache_bytes
    assert many.totals.activation_read_bytes == pytest.approx(
        factor * one.totals.activation_read_bytes
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 2000), st.integers(1, 200))
def test_more_tokens_never_cost_less(visual: int, more: int) -> None:
    few = estimate("llava-1.5-7b", A100, visual_tokens=visual)
    many = estimate("llava-1.5-7b", A100, visual_tokens=visual + more)
    for name in ("flops", "hbm_bytes", "time_s"):
        assert many.totals[name] > few.totals[name]
    assert many.memory.peak_memory_bytes >= few.memory.peak_memory_bytes


def test_no_image_costs_no_vision() -> None:
    cost = estimate("llava-1.5-7b", A100, visual_tokens=0)
    vision, projector = cost.stages["vision"], cost.stages["projector"]
    assert vision.flops == vision.hbm_bytes == vision.kernels == projector.flops == 0
    assert projector.kernels == 1
    assert vision.bound is None
    # the look-up of 40 rows of 4096 FP16 numbers, and nothing merged
    assert (projector.weight_bytes, projector.activation_write_bytes) == (40 * 4096 * 2,) * 2
    # the text alone: 32 layers at 40 tokens, one row of logits
    body = 32 * (2 * 40 * (4 * 4096**2 + 3 * 4096 * 11008) + 4 * 40**2 * 4096)
    assert cost.totals.flops == body + 2 * 4096 * 32064


@pytest.mark.parametrize(
    ("model", "paper", "carried", "crops"),
    [("llava-next-vicuna-7b", 2880, 2928, 5), ("video-llava-7b", 2048, 2056, 8)],
)
def test_newline_and_class_tokens_are_no_second_image(
    model: str, paper: int, carried: int, crops: int
) -> None:
    inputs = [estimate(model, A100, visual_tokens=n).inputs for n in (paper, carried, carried + 1)]
    assert [given["crops"] for given in inputs] == [crops, crops, 2 * crops]
    table = sweep(model, A100, visual_tokens=[0, 1, paper, carried, carried + 1])
    assert list(table.crops) == [0, crops, crops, crops, 2 * crops]


def test_causal_attention_executes_the_triangle() -> None:
    cost = estimate("llava-1.5-7b", A100)
    attention = next(op for op in cost.ops if op.name == "attention" and op.stage == "prefill")
    # pairs 616*617/2: 4 x 128 FLOP of products and 5 of softmax each, 32 heads, 32 layers
    assert attention.executed_flops == 32 * 32 * (616 * 617 // 2) * (4 * 128 + 5)
    assert attention.flops == 32 * 4 * 616**2 * 4096


def test_grouped_queries_share_keys() -> None:
    mistral, vicuna = (
        estimate(f"llava-next-{name}-7b", A100, visual_tokens=576).memory.kv_cache_bytes
        for name in ("mistral", "vicuna")
    )
    assert vicuna == 4 * mistral  # 32 heads share 8


def test_flash_output_is_tokens_by_width() -> None:
    attention = next(op for op in estimate("llama-2-7b", A100, visual_tokens=100).ops
                     if op.name == "attention")  # fmt: skip
    assert attention.activation_write_bytes == 32 * 140 * 4096 * 2
    assert attention.kv_read_bytes == 32 * 2 * 140 * 4096 * 2


def test_kv_by_layer_adds_up_and_is_ragged_where_tokens_are_dropped() -> None:
    whole = estimate("llava-1.5-7b", A100, output_tokens=7)
    assert len(whole.kv_bytes_by_layer) == 32
    assert set(whole.kv_bytes_by_layer) == {2 * 4096 * 2 * (616 + 7)}
    dropped = estimate("llava-1.5-7b", A100, method="vtw", layer=16)
    each = 2 * 4096 * 2
    assert dropped.kv_bytes_by_layer == (616 * each,) * 16 + (40 * each,) * 16
    assert sum(dropped.kv_bytes_by_layer) == dropped.memory.kv_cache_bytes


def test_decode_grows_with_context() -> None:
    short, long = (
        estimate("llama-2-7b", A100, visual_tokens=0, text_tokens=t, output_tokens=1).stages[
            "decode"
        ]
        for t in (100, 1100)
    )
    assert long.flops - short.flops == 32 * 4 * 1000 * 4096
    assert long.kv_read_bytes - short.kv_read_bytes == 32 * 2 * 1000 * 4096 * 2


def test_decode_sums_its_steps() -> None:
    """300 steps cost what the 300 single steps cost at their contexts."""
    together = estimate("llama-2-7b", A100, text_tokens=50, output_tokens=300).stages["decode"]
    apart = [
        estimate("llama-2-7b", A100, text_tokens=50 + i, output_tokens=1).stages["decode"]
        for i in range(300)
    ]
    assert together.flops == sum(step.flops for step in apart)
    assert together.kv_read_bytes == sum(step.kv_read_bytes for step in apart)
    assert together.time_s == pytest.approx(sum(step.time_s for step in apart), rel=1e-6)


class TestPrecision:
    def test_group_scales_are_counted(self) -> None:
        # 7B body products: 6,476,005,376 weights; 4 bits and a 16-bit scale per 128
        products = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
        fp16, int4 = (
            estimate("llama-2-7b", A100, precision=p).memory.weight_bytes for p in ("fp16", "int4")
        )
        assert fp16 - int4 == products * 2 - (products // 2 + products // 128 * 2)

    def test_flops_do_not_scale_with_bits(self) -> None:
        counts = {
            estimate("llava-1.5-7b", A100, precision=p).totals.flops
            for p in ("fp32", "fp16", "bf16", "w8a16", "w4a16", "w8a8", "w4a4kv4")
        }
        assert len(counts) == 1

    def test_int4_speeds_decode_not_prefill(self) -> None:
        fp16, int4 = (
            estimate("llava-1.5-7b", A100, precision=p, output_tokens=10, calibration="none")
            for p in ("fp16", "int4")
        )
        assert int4.stages["decode"].time_s < fp16.stages["decode"].time_s / 2
        assert int4.stages["prefill"].time_s >= 0.99 * fp16.stages["prefill"].time_s
        assert int4.stages["vision"].weight_bytes == fp16.stages["vision"].weight_bytes

    def test_kv_bits_are_apart(self) -> None:
        wide, narrow = (
            estimate("llava-1.5-7b", A100, precision=p).memory for p in ("w4a16", "w4a16kv4")
        )
        assert wide.kv_cache_bytes == 4 * narrow.kv_cache_bytes
        assert wide.weight_bytes == narrow.weight_bytes

    def test_narrow_weights_have_group_scales_whatever_they_meet(self) -> None:
        """4-bit weights on INT8 units: a scale per 128 of them, and the work of widening them."""
        narrow, wide = (parse_precision(name).text for name in ("w4a8kv8", "w8a8kv8"))
        assert (narrow.group_size, wide.group_size) == (128, 0)
        assert (narrow.dequantise, wide.dequantise) == (True, False)
        assert narrow.linear_dtype == wide.linear_dtype == "int8"
        products = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
        w4a16, w4a8 = (
            estimate("llama-2-7b", A100, precision=p).memory.weight_bytes
            for p in ("w4a16", "w4a8kv8")
        )
        assert w4a16 == w4a8
        assert w4a16 < 0.53 * products + 2 * 2 * 32000 * 4096 + 2 * 65 * 4096

    @pytest.mark.parametrize("attention", ["flash", "eager"])
    @pytest.mark.parametrize("precision", ["fp16", "w8a8", "w4a4", "text=w8a8,vision=w8a8"])
    def test_products_read_what_was_written_for_them(self, precision: str, attention: str) -> None:
        """Fused kernels hand on what the next product multiplies, quantised where it is."""
        cost = estimate("llava-1.5-7b", A100, precision=precision, attention=attention)
        ops = {(op.stage, op.name): op for op in cost.ops}
        d = {"prefill": 616 * 4096 * 32, "vision": 577 * 1024 * 24}
        for stage, before, after, stream in [
            ("prefill", "input_norm", "qkv_proj", 1),
            ("prefill", "post_attention_norm", "gate_up_proj", 1),
            ("prefill", "attention" if attention == "flash" else "attention_values", "o_proj", 0),
            ("prefill", "act_mul", "down_proj", 0),
            ("vision", "norm1", "qkv_proj", 1),
            ("vision", "gelu", "fc2", 0),
        ]:
            written = ops[stage, before].activation_write_bytes - stream * d[stage] * 2
            assert written == ops[stage, after].activation_read_bytes, (stage, before)

    def test_modules_by_name(self) -> None:
        p = parse_precision("text=w4a16,vision=w8a8")
        assert (p.text.weight_bytes, p.vision.linear_dtype, p.lm_head.name) == (0.5, "int8", "fp16")

    @pytest.mark.parametrize("name", ["w3.5", "fp12", "w4a2kv4", "w5a16kv16", "text=", "vision=fp16",
                                      "text=fp16,text=fp16", "", "audio=fp16"])  # fmt: skip
    def test_refused(self, name: str) -> None:
        with pytest.raises((UnknownNameError, InvalidInputError)):
            parse_precision(name)


def test_long_decodes_leave_the_first_token_its_time() -> None:
    """Sums of stages, not a total less its decode: no rounding of 10^7 steps gets into the TTFT."""
    first = estimate("llava-1.5-7b", A100).totals.ttft_s
    assert estimate("llava-1.5-7b", A100, output_tokens=10**7).totals.ttft_s == first
    swept = sweep("llava-1.5-7b", A100, output_tokens=[0, 10**7]).ttft_s
    assert swept.tolist() == pytest.approx([first, first], rel=1e-14)


def test_sweep_has_every_combination_in_order() -> None:
    table = sweep(["llava-1.5-7b", "llava-1.5-13b"], A100, visual_tokens=[1, 2], batch_size=[3, 4])
    assert list(zip(table.model, table.visual_tokens, table.batch_size, strict=True)) == [
        (model, v, b) for model in ("llava-1.5-7b", "llava-1.5-13b") for v in (1, 2) for b in (3, 4)
    ]


def test_chunks_are_bounded_and_complete() -> None:
    chunks = list(
        sweep_chunks("llava-1.5-7b", A100, visual_tokens=range(1, 1000), batch_size=[1, 2, 3],
                     chunk_rows=256)
    )  # fmt: skip
    assert max(chunk.rows for chunk in chunks) == 256
    assert sum(chunk.rows for chunk in chunks) == 2997
    visual = np.concatenate([chunk.columns["visual_tokens"] for chunk in chunks])
    assert np.array_equal(visual, np.repeat(np.arange(1, 1000), 3))
