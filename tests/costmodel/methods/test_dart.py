"""DART: own FLOPs by hand."""

import pytest

from costmodel import estimate
from costmodel.methods import get_method
from hardware_specs.errors import InvalidInputError

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"


def test_dart(own) -> None:
    assert own("dart").flops == own("dart", layer=7).flops == 2 * 8 * 576 * 4096


def test_the_embedding_variant_shares_the_keep_among_images() -> None:
    method = get_method("dart(variant=embedding, keep=0.25)")
    cost = estimate(MODEL, A100, method=method, images=3)
    assert cost.stages["reduction"].flops == 2 * 8 * 3 * 576 * 4096
    assert cost.visual_tokens_by_layer[-1] == (32, 3 * 144)
    with pytest.raises(InvalidInputError, match="acts before layer 0"):
        estimate(MODEL, A100, method=get_method("dart(variant=embedding, layer=5)"))
