"""A mixed stack: each layer is of its own kind, and spans run each kind as often as it stands in them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from costmodel.blocks import Learned, Stack
from costmodel.models import load_model
from costmodel.moments import moments
from costmodel.plans import Plan, get_plan
from costmodel.precision import parse_precision
from costmodel.program import Program
from costmodel.schedule import LayerSpan
from hardware_specs.errors import UnsupportedError

FP16 = parse_precision("fp16")


def mixed(plan: Plan) -> Program:
    """Llama whose every fourth layer has an MLP of half the width, with names of its own."""
    model = load_model("llama-2-7b")
    text = model.text
    large = text.stack.kinds[0]
    small = tuple(
        replace(block, name=f"small_{block.name}") if hasattr(block, "name") else block
        for block in load_model("llama-2-7b@width=1/2").text.stack.kinds[0]
    )
    pattern = tuple(int(layer % 4 == 3) for layer in range(32))
    stack = Stack(text.stack.before, (large, small), pattern, text.stack.after)
    return Program(replace(model, text=replace(text, stack=stack)), FP16, plan, attention="flash")


def test_a_span_runs_each_kind_as_often_as_it_stands_in_it() -> None:
    program = mixed(get_plan("fused"))
    spans = (LayerSpan(6, 100), LayerSpan(26, 50))
    ops = program.prefill(1, 10, spans, all_logits=False)
    counts = Counter({op.name: op.count for op in ops})
    assert counts["qkv_proj[0:6]"] == 5
    assert counts["small_qkv_proj[0:6]"] == 1  # layer 3
    assert counts["qkv_proj[6:32]"] == 19
    assert counts["small_qkv_proj[6:32]"] == 7
    assert sum(op.count for op in ops if op.name.startswith("attention")) == 32


def test_a_block_without_a_rule_is_refused() -> None:
    plan = get_plan("fused")
    lacking = replace(plan, rules={k: v for k, v in plan.rules.items() if k is not Learned})
    with pytest.raises(UnsupportedError, match="no rule for Learned"):
        lacking.lower([Learned(4)], None)  # type: ignore[arg-type]


def test_worst_moments_by_hand() -> None:
    """Mistral: d = 4096, f = 14336, 32 query heads and 8 KV heads of 128."""
    layer = load_model("llava-next-mistral-7b").text.stack.kinds[0]
    d, f, kv = 4096, 14336, 8 * 128
    # Fused: stream, norm, then gate, value and product; or q, k and v.
    assert moments(layer, d, get_plan("fused")) == (2 * d + 3 * f, 2 * d + d + 2 * kv, 32)
    # PyTorch: the layer's input as well; K and V are in the cache, but repeated for every head.
    assert moments(layer, d, get_plan("hf-eager")) == (3 * d + 3 * f, 2 * d + 3 * d, 32)
