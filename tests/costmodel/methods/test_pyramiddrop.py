"""PyramidDrop: own FLOPs by hand, and its paper's table by its own counting."""

import pytest

from costmodel import estimate

A100 = "nvidia-a100-sxm4-80gb"


def test_pyramiddrop(own) -> None:
    # Keys of all tokens, one query, one row of scores, at 616, 328 and 184 tokens.
    stages = (616, 328, 184)
    assert own("pyramiddrop").flops == sum(
        2 * s * 4096**2 + 2 * 4096**2 + 2 * s * 4096 for s in stages
    )


def test_pyramiddrop_drops_after_quarters_of_40_layers(plan_of, llm_tokens) -> None:
    tokens = llm_tokens(plan_of("llava-1.5-13b", method="pyramiddrop"))
    assert tokens == [576] * 10 + [288] * 10 + [144] * 10 + [72] * 10


@pytest.mark.parametrize(
    ("model", "visual", "keep", "printed"),
    [
        ("llava-1.5-7b", None, 0.4, "1.54"),
        ("llava-1.5-7b", None, 0.5, "1.78"),
        ("llava-1.5-7b", None, 0.6, "2.06"),
        ("llava-next-vicuna-7b", 2880, 0.5, "9.46"),
        ("llava-next-vicuna-7b", 2880, 0.4, "8.22"),
    ],
)
def test_pyramiddrops_own_counting_gives_its_tables(model, visual, keep, printed) -> None:
    cost = estimate(
        model, A100, visual_tokens=visual, method="pyramiddrop", keep=keep,
        convention="pyramiddrop", text_tokens=None,
    )  # fmt: skip
    assert f"{cost.totals.flops / 1e12:.2f}" == printed
