"""The plan `fused`: one kernel per op class."""

from __future__ import annotations

import pytest

from costmodel import estimate

A100 = "nvidia-a100-sxm4-80gb"


def test_kernels_of_a_layer() -> None:
    cost = estimate("llava-1.5-7b", A100, output_tokens=1)
    # 2 norms, 4 products, rotation with cache write, attention, activation; then norm and head.
    assert cost.stages["prefill"].kernels == 32 * 9 + 2
    assert cost.stages["decode"].kernels == 1 + 32 * 9 + 2
    # A layer of the tower has no rotation; patches, pre-norm and post-norm around them.
    assert cost.stages["vision"].kernels == 24 * 8 + 3


@pytest.mark.parametrize("precision", ["fp16", "w8a8"])
def test_an_attention_that_writes_its_scores_has_three(precision: str) -> None:
    flash, eager = (
        estimate("llava-1.5-7b", A100, attention=attention, precision=precision)
        for attention in ("flash", "eager")
    )
    assert eager.stages["prefill"].kernels - flash.stages["prefill"].kernels == 2 * 32
    assert eager.stages["prefill"].flops == flash.stages["prefill"].flops
