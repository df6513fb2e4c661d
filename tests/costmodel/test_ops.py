"""Every op formula: numbers derived by hand, an independent counter, and what must hold for any shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from costmodel.calibration.classes import OP_CLASSES, PARENTS
from costmodel.ops import get_op, list_ops
from costmodel.precision import parse_precision
from costmodel.roofline import Roofline
from hardware_specs import get_hardware

if TYPE_CHECKING:
    from costmodel.quantities import OpCost

FP16, FP32, INT8 = (parse_precision(name).text for name in ("fp16", "fp32", "w8a8kv8"))
INT4 = parse_precision("w4a16").text

# b=2 samples, s=3 queries, t=5 keys, h=4 heads, k=2 KV heads, e=8, d=32, f=64
BYTES = ("weight_bytes", "kv_read_bytes", "kv_write_bytes", "activation_read_bytes",
         "activation_write_bytes")  # fmt: skip


@pytest.mark.parametrize(
    ("op", "arguments", "num", "flops", "vector", "moved"),
    [
        # 2 x 6 x 32 x 64; 32 x 64 weights; 6 x 32 in, 6 x 64 out, 2 B each
        ("linear", (6, 32, 64), FP16, 24576, 0, (4096, 0, 0, 384, 768)),
        # weights 1 B and 64 scales of 2 B, operands 1 B, outputs 2 B
        ("linear", (6, 32, 64), INT8, 24576, 0, (2048 + 128, 0, 0, 192, 768)),
        # half a byte and 64 scales; 2 FLOP to widen each of 2048 weights
        ("linear", (6, 32, 64), INT4, 24576, 4096, (1024 + 128, 0, 0, 384, 768)),
        ("convolution", (6, 12, 32), FP16, 4608, 0, (768, 0, 0, 144, 384)),
        # 4 x 2 x 4 x 3 x 5 x 8; pairs 3 x 2 + 1 + 2 + 3 = 12 of 15, x 8 heads, 5 FLOP of softmax;
        # K and V: 2 x 2 x 5 x 2 x 8; q and out: 2 x 3 x 4 x 8
        ("attention", ("attention_prefill", 2, 3, 5, 4, 2, 8), FP16, 3840, 480,
         (0, 640, 0, 384, 384)),
        # KV of 1 B
        ("attention", ("attention_decode", 2, 3, 5, 4, 2, 8), INT8, 3840, 480,
         (0, 320, 0, 384, 384)),
        # q and K read, 2 x 4 x 3 x 5 scores written
        ("attention_scores", (2, 3, 5, 4, 2, 8), FP16, 1920, 0, (0, 320, 0, 384, 240)),
        ("attention_values", (2, 3, 5, 4, 2, 8), FP16, 1920, 0, (0, 320, 0, 240, 384)),
        ("softmax", (24, 5), FP16, 0, 600, (0, 0, 0, 240, 240)),
        ("norm", (6, 32), FP16, 0, 768, (64, 0, 0, 384, 384)),
        ("residual", (6, 32), FP32, 0, 192, (0, 0, 0, 1536, 768)),
        # q: 2 x 3 x 32, k and v: 2 x 3 x 16 each; 3 FLOP per rotated number
        ("rope", (2, 3, 4, 2, 8), FP16, 0, 864, (0, 0, 384, 768, 384)),
        # gate and value in, one byte out where the next product takes INT8
        ("activation", (6, 64), INT8, 0, 1920, (0, 0, 0, 1536, 384)),
        ("cache_write", (2, 3, 2, 8), INT8, 0, 0, (0, 0, 192, 384, 0)),
        ("copy", (100,), FP16, 0, 0, (0, 0, 0, 200, 200)),
        # rows of the table, not the table
        ("embedding", (6, 32), FP16, 0, 0, (384, 0, 0, 0, 384)),
    ],
)  # fmt: skip
def test_by_hand(
    op: str, arguments: tuple, num: Any, flops: int, vector: int, moved: tuple[int, ...]
) -> None:
    cost = get_op(op)("op", *arguments, num)
    assert cost.flops == flops
    assert cost.vector_flops == vector
    assert tuple(getattr(cost, name) for name in BYTES) == moved
    assert cost.hbm_bytes == sum(moved)
    assert cost.op_class in (*OP_CLASSES, *PARENTS)


def test_every_formula_is_tested() -> None:
    named = {mark.args[1][n][0] for mark in test_by_hand.pytestmark for n in range(16)}
    assert set(list_ops()) - named == {"pointwise"}, "pointwise is what the others are made of"


@given(*(st.integers(1, 9) for _ in range(4)), st.sampled_from([1, 2, 4]))
def test_products_count_as_torch_counts(b: int, s: int, t: int, e: int, group: int) -> None:
    h, k = 4, 4 // group

    def counted(run: Any) -> int:
        with FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    q, kv = torch.empty(b, h, s, e, device="meta"), torch.empty(b, h, t, e, device="meta")
    whole = counted(lambda: torch.softmax(q @ kv.transpose(2, 3), -1) @ kv)
    shape = (b, s, t, h, k, e, FP16)
    assert get_op("attention")("op", "attention_prefill", *shape).flops == whole
    parts = [get_op(n)("op", *shape).flops for n in ("attention_scores", "attention_values")]
    assert parts == [whole // 2] * 2
    x, w = torch.empty(b * s, e, device="meta"), torch.empty(e, t, device="meta")
    assert get_op("linear")("op", b * s, e, t, FP16).flops == counted(lambda: x @ w)


@pytest.mark.parametrize("causal", [True, False])
@given(st.integers(1, 12), st.integers(0, 12))
def test_executed_pairs_are_those_a_query_may_see(causal: bool, s: int, past: int) -> None:
    t = s + past
    mask = np.tril(np.ones((s, t)), k=past) if causal else np.ones((s, t))
    op = get_op("attention")("op", "attention_prefill", 1, s, t, 1, 1, 1, FP16, causal=causal)
    assert op.matrix_flops == 4 * mask.sum()
    assert op.matrix_flops <= op.flops


@given(st.integers(1, 50), st.integers(1, 4), st.integers(2, 5))
def test_numbers_and_arrays_alike_and_linear_in_the_batch(s: int, b: int, factor: int) -> None:
    def cost(batch: Any, length: Any) -> list[OpCost]:
        rows = batch * length
        return [
            get_op("linear")("op", rows, 8, 16, INT4, bias=True),
            get_op("attention")("op", "attention_prefill", batch, length, length, 4, 2, 8, FP16),
            get_op("softmax")("op", rows, length, FP16),
            get_op("rope")("op", batch, length, 4, 2, 8, INT8),
            get_op("norm")("op", rows, 8, FP16, residual_add=True),
            get_op("activation")("op", rows, 8, INT8, gated=False),
        ]

    roofline = Roofline(get_hardware("nvidia-a100-sxm4-80gb"))
    arrays = cost(np.array([b, factor * b], dtype=float), np.array([s, s], dtype=float))
    for one, many, both in zip(cost(b, s), cost(factor * b, s), arrays, strict=True):
        assert many.flops == factor * one.flops
        assert many.kv_read_bytes == factor * one.kv_read_bytes
        assert many.kv_write_bytes == factor * one.kv_write_bytes
        assert many.activation_read_bytes == factor * one.activation_read_bytes
        assert many.activation_write_bytes == factor * one.activation_write_bytes
        assert many.weight_bytes == one.weight_bytes
        for name in ("flops", "executed_flops", "hbm_bytes"):
            expected = [getattr(one, name), getattr(many, name)]
            assert np.broadcast_to(getattr(both, name), 2).tolist() == expected
        times = [roofline.stage([op], vector=False).time_s for op in (one, many)]
        assert roofline.stage([both], vector=True).time_s.tolist() == pytest.approx(times)


def test_no_tokens_move_no_activations() -> None:
    for op, arguments in [("linear", (0, 8, 16)), ("norm", (0, 8)), ("softmax", (0, 5)),
                          ("rope", (2, 0, 4, 2, 8)), ("activation", (0, 8)), ("copy", (0,)),
                          ("attention_scores", (2, 0, 0, 4, 2, 8)), ("embedding", (0, 8))]:  # fmt: skip
        cost = get_op(op)("op", *arguments, FP16)
        assert cost.flops == cost.activation_read_bytes == cost.activation_write_bytes == 0
