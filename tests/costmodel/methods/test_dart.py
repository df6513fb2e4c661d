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


@pytest.mark.parametrize("layer", [0, 2, 5])
def test_the_embedding_variant_takes_no_layer(layer) -> None:
    line = "dart(variant=embedding)"
    with pytest.raises(
        InvalidInputError, match=r"takes no layer, and layer=.* acts before layer 0"
    ):
        get_method(line, layer=layer)
    with pytest.raises(InvalidInputError, match="takes no layer"):
        estimate(MODEL, A100, method=line, layer=layer)
