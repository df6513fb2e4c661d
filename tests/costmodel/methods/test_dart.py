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


def test_the_embedding_variant_rounds_up_in_each_image() -> None:
    """The engine's profile of 1,980 visual tokens: 990 go at 0.5; its reduction ratio is 0.25 by itself."""
    for images, line, left in (
        (1, "keep=0.5", 990),
        (2, "keep=0.6", 2 * 1188),
        (1, "keep=0.7", 1386),
    ):
        method = f"dart(variant=embedding, {line})"
        cost = estimate(
            "qwen3-vl-4b", A100, visual_tokens=1980 * images, images=images, method=method
        )
        assert cost.visual_tokens_by_layer[-1] == (36, left)
    assert (
        estimate(
            MODEL, A100, method="dart(variant=embedding, keep=0.1)", images=3
        ).mean_visual_tokens
        == 174
    )
    assert get_method("dart(variant=embedding)").keep == 0.75
    with pytest.raises(InvalidInputError, match="order"):
        get_method("dart(variant=embedding, order=norm)")


@pytest.mark.parametrize("layer", [0, 2, 5])
def test_the_embedding_variant_takes_no_layer(layer) -> None:
    line = "dart(variant=embedding)"
    with pytest.raises(
        InvalidInputError, match=r"takes no layer, and layer=.* acts before layer 0"
    ):
        get_method(line, layer=layer)
    with pytest.raises(InvalidInputError, match="takes no layer"):
        estimate(MODEL, A100, method=line, layer=layer)
