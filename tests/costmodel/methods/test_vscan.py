"""VScan: own FLOPs by hand, its schedule, and what it does not fit."""

import pytest

from costmodel import estimate
from hardware_specs.errors import InvalidInputError, UnsupportedError

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"


def test_vscan(own, plan_of, llm_tokens) -> None:
    # Two rows of 577, 480 patches beside 96, and at layer 16 keys of 136 tokens, a query and its row.
    stage = 2 * 136 * 4096**2 + 2 * 4096**2 + 2 * 136 * 4096
    assert own("vscan", text_tokens=40).flops == 4 * 577 * 1024 + 4 * 480 * 96 * 4096 + stage
    assert llm_tokens(plan_of(method="vscan")) == [96] * 16 + [32] * 16
    assert llm_tokens(plan_of(method="vscan", keep=288)) == [288] * 16 + [96] * 16
    cost = estimate("llava-1.5-13b", A100, method="vscan(cut=8, deep=0.5)")
    assert cost.visual_tokens_by_layer == ((8, 96), (32, 48))


def test_what_it_does_not_fit() -> None:
    with pytest.raises(UnsupportedError, match="tower's own patches"):
        estimate("qwen2.5-vl-7b", A100, method="vscan")
    with pytest.raises(InvalidInputError, match="last that can be is 31; give cut="):
        estimate(MODEL, A100, method="vscan(cut=40)")
    with pytest.raises(InvalidInputError, match="vision layer 30"):
        estimate(MODEL, A100, method="vscan(shallow=30)")
    with pytest.raises(InvalidInputError, match="after-projector, then llm-layer"):
        estimate(MODEL, A100, method="vscan/fastv")
