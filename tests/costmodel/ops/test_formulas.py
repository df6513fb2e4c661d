"""Every op formula: numbers derived by hand, an independent counter, and what must hold for any shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from costmodel import ops
from costmodel.calibration.classes import OP_CLASSES, PARENTS
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
    ("cost", "flops", "vector", "moved"),
    [
        # 2 x 6 x 32 x 64; 32 x 64 weights; 6 x 32 in, 6 x 64 out, 2 B each
        (ops.linear("op", 32, 64, FP16)(6), 24576, 0, (4096, 0, 0, 384, 768)),
        # weights 1 B and 64 scales of 2 B, operands 1 B, outputs 2 B
        (ops.linear("op", 32, 64, INT8)(6), 24576, 0, (2048 + 128, 0, 0, 192, 768)),
        # half a byte and 64 scales; 2 FLOP to widen each of 2048 weights
        (ops.linear("op", 32, 64, INT4)(6), 24576, 4096, (1024 + 128, 0, 0, 384, 768)),
        # 64 biases read, 6 x 64 added
        (ops.linear("op", 32, 64, FP16, bias=True)(6), 24576, 384, (4096 + 128, 0, 0, 384, 768)),
        (ops.convolution("op", 12, 32, FP16)(6), 4608, 0, (768, 0, 0, 144, 384)),
        # 4 x 2 x 4 x 3 x 5 x 8; pairs 3 x 2 + 1 + 2 + 3 = 12 of 15, x 8 heads, 5 FLOP of softmax;
        # K and V: 2 x 2 x 5 x 2 x 8; q and out: 2 x 3 x 4 x 8
        (ops.attention("op", "attention_prefill", 4, 2, 8, FP16)(2, 3, 5), 3840, 480,
         (0, 640, 0, 384, 384)),
        # KV of 1 B
        (ops.attention("op", "attention_decode", 4, 2, 8, INT8)(2, 3, 5), 3840, 480,
         (0, 320, 0, 384, 384)),
        # q and K read, 2 x 4 x 3 x 5 scores written
        (ops.attention_scores("op", 4, 2, 8, FP16)(2, 3, 5), 1920, 0, (0, 320, 0, 384, 240)),
        (ops.attention_values("op", 4, 2, 8, FP16)(2, 3, 5), 1920, 0, (0, 320, 0, 240, 384)),
        # 2 x 4 x 3 rows of 5 scores
        (ops.softmax("op", FP16, 4)(2, 3, 5), 0, 600, (0, 0, 0, 240, 240)),
        (ops.norm("op", 32, FP16)(6), 0, 768, (64, 0, 0, 384, 384)),
        (ops.residual("op", 32, FP32)(6), 0, 192, (0, 0, 0, 1536, 768)),
        # q: 2 x 3 x 32, k and v: 2 x 3 x 16 each; 3 FLOP per rotated number
        (ops.rope("op", 4, 2, 8, FP16)(2, 3), 0, 864, (0, 0, 384, 768, 384)),
        # gate and value in, one byte out where the next product takes INT8
        (ops.activation("op", 64, INT8)(6), 0, 1920, (0, 0, 0, 1536, 384)),
        (ops.copy("op", FP16)(100), 0, 0, (0, 0, 0, 200, 200)),
        # rows of the table, not the table
        (ops.embedding("op", 32, FP16)(6), 0, 0, (384, 0, 0, 0, 384)),
    ],
)  # fmt: skip
def test_by_hand(cost: OpCost, flops: int, vector: int, moved: tuple[int, ...]) -> None:
    assert cost.flops == flops
    assert cost.vector_flops == vector
    assert tuple(getattr(cost, name) for name in BYTES) == moved
    assert cost.hbm_bytes == sum(moved)
    assert cost.op_class in (*OP_CLASSES, *PARENTS)


@given(*(st.integers(1, 9) for _ in range(4)), st.sampled_from([1, 2, 4]))
def test_products_count_as_torch_counts(b: int, s: int, t: int, e: int, group: int) -> None:
    h, k = 4, 4 // group

    def counted(run: Any) -> int:
        with FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    q, kv = torch.empty(b, h, s, e, device="meta"), torch.empty(b, h, t, e, device="meta")
    whole = counted(lambda: torch.softmax(q @ kv.transpose(2, 3), -1) @ kv)
    assert ops.attention("op", "attention_prefill", h, k, e, FP16)(b, s, t).flops == whole
    for half in (ops.attention_scores, ops.attention_values):
        assert half("op", h, k, e, FP16)(b, s, t).flops == whole // 2
    x, w = torch.empty(b * s, e, device="meta"), torch.empty(e, t, device="meta")
    assert ops.linear("op", e, t, FP16)(b * s).flops == counted(lambda: x @ w)


@pytest.mark.parametrize("causal", [True, False])
@given(st.integers(1, 12), st.integers(0, 12))
def test_executed_pairs_are_those_a_query_may_see(causal: bool, s: int, past: int) -> None:
    t = s + past
    mask = np.tril(np.ones((s, t)), k=past) if causal else np.ones((s, t))
    op = ops.attention("op", "attention_prefill", 1, 1, 1, FP16, causal=causal)(1, s, t)
    assert op.matrix_flops == 4 * mask.sum()
    assert op.matrix_flops <= op.flops


@given(st.integers(1, 50), st.integers(1, 4), st.integers(2, 5))
def test_numbers_and_arrays_alike_and_linear_in_the_batch(s: int, b: int, factor: int) -> None:
    def cost(batch: Any, length: Any) -> list[OpCost]:
        rows = batch * length
        return [
            ops.linear("op", 8, 16, INT4, bias=True)(rows),
            ops.attention("op", "attention_prefill", 4, 2, 8, FP16)(batch, length, length),
            ops.softmax("op", FP16, 4)(batch, length, length),
            ops.rope("op", 4, 2, 8, INT8)(batch, length),
            ops.norm("op", 8, FP16, residual_add=True)(rows),
            ops.activation("op", 8, INT8, gated=False)(rows),
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
    costs = (
        ops.linear("op", 8, 16, FP16)(0),
        ops.norm("op", 8, FP16)(0),
        ops.softmax("op", FP16, 4)(2, 0, 5),
        ops.rope("op", 4, 2, 8, FP16)(2, 0),
        ops.activation("op", 8, FP16)(0),
        ops.copy("op", FP16)(0),
        ops.attention_scores("op", 4, 2, 8, FP16)(2, 0, 0),
        ops.embedding("op", 8, FP16)(0),
    )
    for cost in costs:
        assert cost.flops == cost.activation_read_bytes == cost.activation_write_bytes == 0
