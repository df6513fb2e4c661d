from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.conventions import DecoderShape, get_convention
from costmodel.conventions.llmviewer.devices import DEVICES, parse_bits
from costmodel.result import defined
from hardware_specs.errors import (
    InvalidInputError,
    MissingPeakError,
    UnknownHardwareError,
    UnknownPrecisionError,
    UnsupportedError,
)

SHAPE_7B = DecoderShape(4096, 11008, 32, 32, 32, 32000)
SHAPE_13B = DecoderShape(5120, 13824, 40, 40, 40, 32000)
# d 8, f 12, 2 layers, 4 heads of 2, 2 KV heads, vocabulary 10.
SMALL = DecoderShape(8, 12, 2, 4, 2, 10)
PRESETS = ("llmviewer-2024-02", "llmviewer-2024-07")


def evaluate(name=PRESETS[0], shape=SMALL, **arguments):
    settled = {"hardware": "nvidia_V100", "visual_tokens": 3, "text_tokens": 0} | arguments
    return get_convention(name).evaluate(shape, **settled)


def columns(op):
    return (
        op.flops,
        op.weight_bytes,
        op.activation_read_bytes,
        op.activation_write_bytes,
        op.kv_read_bytes,
        op.kv_write_bytes,
    )


def rows(name=PRESETS[0], stage="prefill", **arguments):
    result = evaluate(name, **arguments)
    return {op.name: columns(op) for op in result.ops if op.stage == stage}


# One layer at b = 2, S = 3 with 2-byte weights, 1-byte activations, half-byte KV (w16a8kv4), by the
# tool's formulas; the two layers of SMALL double every row but the head's.
ONE_LAYER = {
    # 2*8*8*2*3 operations; 64 weights; 8*2*3 in and out.
    "q_proj": (768, 128, 48, 48, 0, 0),
    # 4 output channels; 2*8*4*2*3; 32 weights; the output 4*2*3 goes to the cache.
    "k_proj": (384, 64, 48, 0, 0, 12),
    "v_proj": (384, 64, 48, 0, 0, 12),
    "out_proj": (768, 128, 48, 48, 0, 0),
    # 2*8*12*2*3; 96 weights; 8*6 in, 12*6 out.
    "gate_proj": (1152, 192, 48, 72, 0, 0),
    "up_proj": (1152, 192, 48, 72, 0, 0),
    "down_proj": (1152, 192, 72, 48, 0, 0),
    # 2*3*3*2*4*2; scores 3*3*2*4; keys 3*2*2*2 elements of half a byte, read twice.
    "qk_matmul": (288, 0, 0, 72, 24, 0),
    # 5 per score.
    "softmax": (360, 0, 72, 72, 0, 0),
    # Scores in, 3*2*2*4 out, values once.
    "sv_matmul": (288, 0, 72, 48, 12, 0),
    # 7 per element of 8*2*3.
    "attn_norm": (336, 0, 48, 48, 0, 0),
    "mlp_norm": (336, 0, 48, 48, 0, 0),
    "attn_add": (48, 0, 48, 48, 0, 0),
    "mlp_add": (48, 0, 48, 48, 0, 0),
    # 2 per element of the width, not of the FFN.
    "mlp_act": (96, 0, 96, 48, 0, 0),
}


@pytest.mark.parametrize("op", ONE_LAYER)
def test_prefill_op_by_hand(op):
    found = rows(precision="w16a8kv4", batch_size=2)[op]
    assert found == tuple(2 * value for value in ONE_LAYER[op])


def test_output_head_by_hand():
    # One operation per MAC: 2*8*10; 80 weights of one byte whatever the width; one row in and out.
    assert rows(precision="w16a8kv4", batch_size=2)["lm_head"] == (160, 80, 8, 10, 0, 0)
    # The later state gives the head the weights' width.
    later = rows(PRESETS[1], precision="w16a8kv4", batch_size=2)["lm_head"]
    assert later == (160, 160, 8, 10, 0, 0)


def test_keys_of_the_later_state_by_hand():
    # The keys once (12 B), and a query of 2 KV heads, 3*2*2*2 elements of one byte.
    later = rows(PRESETS[1], precision="w16a8kv4", batch_size=2)
    assert later["qk_matmul"] == (2 * 288, 0, 2 * 24, 2 * 72, 2 * 12, 0)
    former = rows(precision="w16a8kv4", batch_size=2)
    assert {op for op in later if later[op] != former[op]} == {"qk_matmul", "lm_head"}


def test_decode_step_by_hand():
    # One query at context 3, b = 2, w16a8kv4, two layers.
    found = rows(stage="decode", precision="w16a8kv4", batch_size=2, output_tokens=1)
    assert found["q_proj"] == (2 * 256, 2 * 128, 2 * 16, 2 * 16, 0, 0)
    assert found["k_proj"] == (2 * 128, 2 * 64, 2 * 16, 0, 0, 2 * 4)
    # 2*3*2*4*2; query 2*2*4 bytes; scores 3*2*4; keys 12 bytes, once in both states of the tool.
    assert found["qk_matmul"] == (2 * 96, 0, 2 * 16, 2 * 24, 2 * 12, 0)
    assert found["softmax"] == (2 * 120, 0, 2 * 24, 2 * 24, 0, 0)
    assert found["sv_matmul"] == (2 * 96, 0, 2 * 24, 2 * 16, 2 * 12, 0)
    assert found["attn_norm"] == (2 * 112, 0, 2 * 16, 2 * 16, 0, 0)
    assert found["mlp_act"] == (2 * 32, 0, 2 * 32, 2 * 16, 0, 0)
    assert found["lm_head"] == (160, 80, 8, 10, 0, 0)


def test_operations_of_7b_at_the_stated_length():
    # Twice MAC3 at 616 tokens, 8,177,382,850,560; per layer 5*32*616^2 for softmax and
    # (7 + 7 + 1 + 1 + 2)*4096*616 for norms, adds and activation; 4096*32000 for the head.
    extra = 32 * (5 * 32 * 616**2 + 18 * 4096 * 616) + 4096 * 32000
    result = evaluate(shape=SHAPE_7B, visual_tokens=576, text_tokens=40)
    assert result.totals.flops == 8_177_382_850_560 + extra == 8_180_910_063_616


def test_footprint_of_7b_as_the_tool_gives_it():
    # Weights of 32 layers without the head, 32*(4*4096^2 + 3*4096*11008)*2 = 12,952,010,752 B; cache
    # 616*2*4096*2*32 = 322,961,408 B; what one layer writes. The tool prints 13.396 GB.
    memory = evaluate(shape=SHAPE_7B, visual_tokens=616).memory
    assert memory.weight_bytes == 12_952_010_752
    assert memory.kv_cache_bytes == 322_961_408
    assert memory.peak_memory_bytes == pytest.approx(13.396e9, rel=1e-4)
    assert memory.capacity_bytes is None
    assert memory.fits is None


def test_time_is_the_larger_of_both_sides_op_by_op():
    result = evaluate(shape=SHAPE_7B, visual_tokens=616)
    for op in result.ops:
        compute, memory = op.flops / 112e12, op.hbm_bytes / 900e9
        assert op.time_s == pytest.approx(max(compute, memory), rel=1e-12)
        assert op.bound == ("compute" if compute >= memory else "memory")
    assert result.totals.time_s == pytest.approx(sum(op.time_s for op in result.ops), rel=1e-12)
    assert result.totals.ttft_s == result.totals.time_s


def test_traffic_is_all_loads_and_stores():
    totals = evaluate(shape=SHAPE_7B, visual_tokens=616).totals
    parts = ("weight", "kv_read", "kv_write", "activation_read", "activation_write")
    assert totals.hbm_bytes == sum(totals[f"{part}_bytes"] for part in parts)


@pytest.mark.parametrize(
    ("precision", "peak"),
    [("w8a8kv8", 62e12), ("w4a4kv4", 62e12), ("w8a8kv16", 112e12), ("w4a16kv4", 112e12),
     ("w16a8kv8", 112e12), ("fp16", 112e12)],
)  # fmt: skip
def test_int8_peak_needs_all_three_at_8_bits(precision, peak):
    # A prefill of 7B's down projection is compute-bound on a V100 at any of these.
    result = evaluate(shape=SHAPE_7B, visual_tokens=616, precision=precision)
    op = next(op for op in result.ops if op.name == "down_proj")
    assert op.bound == "compute"
    assert op.time_s == pytest.approx(op.flops / peak, rel=1e-12)


def test_operations_do_not_scale_with_bits_but_bytes_do():
    wide, narrow = evaluate(precision="fp16"), evaluate(precision="w4a4kv4")
    assert wide.totals.flops == narrow.totals.flops
    layers_wide = [op for op in wide.ops if op.name != "lm_head"]
    layers_narrow = [op for op in narrow.ops if op.name != "lm_head"]
    for a, b in zip(layers_wide, layers_narrow, strict=True):
        assert a.hbm_bytes == 4 * b.hbm_bytes


def test_int4_prefill_is_slower_than_fp16_on_the_v100_row():
    fp16 = evaluate(shape=SHAPE_7B, visual_tokens=700).totals.time_s
    int4 = evaluate(shape=SHAPE_7B, visual_tokens=700, precision="w4a4kv4").totals.time_s
    assert int4 > 1.7 * fp16


def test_fractional_bits():
    # 3 bits are 0.375 B: 64 weights of the query projection, two layers.
    assert rows(precision="w3a16kv16")["q_proj"][1] == 2 * 64 * 0.375
    assert parse_bits("w4.25a16").weight_bytes == 4.25 / 8


@pytest.mark.parametrize(
    ("name", "bits"),
    [("fp16", (16, 16, 16)), ("bf16", (16, 16, 16)), ("int8", (8, 8, 8)), ("int4", (4, 16, 16)),
     ("w4a16", (4, 16, 16)), ("w8a8", (8, 8, 8)), ("fp8", (8, 8, 8)), ("w4a8kv2", (4, 8, 2))],
)  # fmt: skip
def test_precision_names(name, bits):
    parsed = parse_bits(name)
    assert (parsed.weight_bits, parsed.activation_bits, parsed.kv_bits) == bits


def test_a_precision_object_is_taken_by_its_name():
    from costmodel.precision import parse_precision

    assert parse_bits(parse_precision("w4a16")) == parse_bits("w4a16")


def test_bad_precisions():
    with pytest.raises(MissingPeakError, match="FP16 and INT8"):
        evaluate(precision="fp32")
    with pytest.raises(UnknownPrecisionError, match="w<bits>a<bits>kv<bits>"):
        evaluate(precision="sixteen")
    with pytest.raises(InvalidInputError, match="1 to 16"):
        evaluate(precision="w32a16kv16")
    with pytest.raises(UnknownPrecisionError):
        evaluate(precision=16)


@pytest.mark.parametrize("name", PRESETS)
def test_flash_attention_is_refused_with_its_reason(name):
    with pytest.raises(UnsupportedError, match=r"S x S where it is S x d.*attention='eager'"):
        evaluate(name, attention="flash")
    assert evaluate(name, attention="eager").totals == evaluate(name).totals
    with pytest.raises(InvalidInputError, match="eager"):
        evaluate(name, attention="sdpa")


def test_devices_are_the_tools_own():
    with pytest.raises(UnknownHardwareError, match="nvidia_A100_80G"):
        evaluate(hardware="nvidia-a100-sxm4-80gb")
    with pytest.raises(InvalidInputError, match="nvidia_V100"):
        evaluate(hardware=None)
    assert DEVICES["nvidia_A100"] == DEVICES["nvidia_A100_40G"]
    assert all(device.int8_flop_per_s > 0 for device in DEVICES.values())


@pytest.mark.parametrize("name", PRESETS)
def test_no_tokens_are_refused(name):
    with pytest.raises(InvalidInputError, match="at least one token"):
        evaluate(name, visual_tokens=0)
    with pytest.raises(InvalidInputError, match="at least one token"):
        evaluate(name, visual_tokens=3, llm_visual_tokens_per_layer=[3, 0])


@pytest.mark.parametrize("bad", [-1, 1.5, True, "2", None])
def test_bad_output_tokens(bad):
    with pytest.raises(InvalidInputError, match="output_tokens"):
        evaluate(output_tokens=bad)


def test_decode_steps_see_a_growing_context():
    whole = evaluate(shape=SHAPE_7B, visual_tokens=100, output_tokens=3)
    steps = [
        evaluate(shape=SHAPE_7B, visual_tokens=100 + i, output_tokens=1).stages["decode"]
        for i in range(3)
    ]
    for key in ("flops", "weight_bytes", "kv_read_bytes", "kv_write_bytes", "hbm_bytes"):
        assert whole.stages["decode"][key] == sum(step[key] for step in steps)
    time_s = sum(step["time_s"] for step in steps)
    assert whole.stages["decode"]["time_s"] == pytest.approx(time_s, rel=1e-12)
    assert whole.totals.tpot_s == pytest.approx(time_s / 3, rel=1e-12)
    assert whole.stages["decode"]["bound"] == "memory"


def test_without_decode_steps_decode_is_undefined():
    result = evaluate()
    assert result.stages["decode"] == defined()
    assert result.totals.tpot_s is None
    assert result.stages["vision"]["flops"] is None


def test_long_answers_are_added_up_in_blocks():
    # 5,000 steps cross the block size; operations are affine in the context, so the sum is closed.
    steps = 5000
    ends = [
        evaluate(visual_tokens=3 + i, output_tokens=1).stages["decode"]["flops"]
        for i in (0, steps - 1)
    ]
    total = evaluate(output_tokens=steps).stages["decode"]["flops"]
    assert total == steps * sum(ends) // 2


def test_a_schedule_is_the_sum_of_its_layers():
    one_layer = DecoderShape(8, 12, 1, 4, 2, 10)
    pruned = evaluate(visual_tokens=9, llm_visual_tokens_per_layer=[9, 4])
    alone = [evaluate(shape=one_layer, visual_tokens=v).totals for v in (9, 4)]
    head = next(op for op in pruned.ops if op.name == "lm_head")
    for key, head_cost in (("flops", head.flops), ("hbm_bytes", head.hbm_bytes)):
        assert pruned.totals[key] == sum(total[key] for total in alone) - head_cost
    # The footprint takes the layer that writes most.
    widest = evaluate(shape=one_layer, visual_tokens=9).memory.peak_activation_bytes
    assert pruned.memory.peak_activation_bytes == widest


def test_flat_schedules_and_text_are_only_lengths():
    flat = evaluate(visual_tokens=9, llm_visual_tokens_per_layer=[9, 9])
    assert flat.totals == evaluate(visual_tokens=9).totals
    assert evaluate(visual_tokens=5, text_tokens=4).totals == evaluate(visual_tokens=9).totals


SCALAR_KEYS = ("flops", "weight_bytes", "kv_read_bytes", "activation_write_bytes", "hbm_bytes")


@settings(max_examples=30)
@given(
    name=st.sampled_from(PRESETS),
    precision=st.sampled_from(["fp16", "w4a4kv4", "w4a16", "w8a8kv16"]),
    visual=st.lists(st.integers(1, 3000), min_size=1, max_size=4),
    batch=st.integers(1, 16),
    steps=st.integers(0, 3),
)
def test_arrays_give_what_numbers_give(name, precision, visual, batch, steps):
    def call(tokens):
        return evaluate(
            name, SHAPE_13B, visual_tokens=tokens, batch_size=batch, precision=precision,
            output_tokens=steps,
        )  # fmt: skip

    vector, scalars = call(np.array(visual)), [call(v) for v in visual]
    for stage in ("prefill", "decode") if steps else ("prefill",):
        for key in SCALAR_KEYS:
            wanted = [scalar.stages[stage][key] for scalar in scalars]
            assert np.broadcast_to(vector.stages[stage][key], len(visual)).tolist() == wanted
        for i, scalar in enumerate(scalars):
            assert vector.stages[stage]["time_s"][i] == pytest.approx(
                scalar.stages[stage]["time_s"], rel=1e-12
            )
            by_compute = vector.stages[stage].compute_s >= vector.stages[stage].memory_s
            assert scalar.stages[stage].bound == ("compute" if by_compute[i] else "memory")


def test_lengths_and_batches_broadcast():
    lengths, batches = np.array([[64], [128]]), np.array([1, 2, 4])
    grid = evaluate(shape=SHAPE_7B, visual_tokens=lengths, batch_size=batches, output_tokens=2)
    assert grid.totals.flops.shape == (2, 3)
    one = evaluate(shape=SHAPE_7B, visual_tokens=128, batch_size=4, output_tokens=2)
    assert grid.totals.flops[1, 2] == one.totals.flops
    assert grid.totals.tpot_s[1, 2] == pytest.approx(one.totals.tpot_s, rel=1e-12)


@given(batch=st.integers(1, 64), tokens=st.integers(1, 2000))
def test_operations_are_linear_in_the_batch_and_the_head_reads_one_row(batch, tokens):
    one = evaluate(visual_tokens=tokens)
    many = evaluate(visual_tokens=tokens, batch_size=batch)
    assert many.totals.flops == batch * one.totals.flops
    assert many.totals.kv_write_bytes == batch * one.totals.kv_write_bytes
    assert many.totals.weight_bytes == one.totals.weight_bytes
    heads = [next(op for op in r.ops if op.name == "lm_head") for r in (one, many)]
    assert heads[0].activation_write_bytes == heads[1].activation_write_bytes


@given(tokens=st.integers(1, 5000), more=st.integers(1, 500))
def test_longer_prompts_cost_more(tokens, more):
    short, long = (
        evaluate(visual_tokens=tokens).totals,
        evaluate(visual_tokens=tokens + more).totals,
    )
    for key in ("flops", "hbm_bytes", "time_s"):
        assert short[key] < long[key]
