"""HiRED: the tokens expected of tiled images."""

import re

import pytest

from costmodel import estimate

A100 = "nvidia-a100-sxm4-80gb"


@pytest.mark.parametrize(
    ("asked", "tokens"),
    [
        ({"visual": 2880}, 576),  # as papers count: no newline tokens; int(.2 x 2880)
        ({"visual": 2928}, 624),  # 672 x 672: 288 of the whole image, 288 of the tiles, 48 newlines
        # 480 x 640: 36 of 48 rows are shown, so 216 of 288 picks, and 36 newlines.
        ({"visual": 2340}, 540),
        # 640 x 480: 48 rows of 36, as many picks, 48 newlines.
        ({"visual": 576 + 48 * 37}, 552),
        # 336 x 672: int(.2 x 1728) = 345, 172 and 173; 24 rows of 48 and as many newlines.
        ({"visual": 576 + 24 * 49, "projected": 1728, "crops": 3}, 172 + 173 + 24),
        ({"visual": 2880, "keep": 1000}, 1000),  # 500 and 500
        # Half of the budget is more than the whole image has; the tiles get the rest.
        ({"visual": 2880, "keep": 2000}, 576 + 1424),
    ],
)
def test_hired_on_tiles(asked, tokens, plan_of, llm_tokens) -> None:
    shape = {"projected": 2880, "crops": 5, **asked}
    plan = plan_of("llava-next-vicuna-7b", method="hired", **shape)
    assert llm_tokens(plan) == [tokens] * 32
    assert plan.projected_tokens == shape["projected"]


@pytest.mark.parametrize(
    ("model", "asked", "says"),
    [
        # 480 x 640: 288 of the whole image and 36 newlines, and up to 288 of the tiles.
        ("llava-next-vicuna-7b", {"image_size": (480, 640)},
         "540 tokens left of an image cut into tiles: .* it may be 324 to 612"),
        ("llava-next-vicuna-7b", {"images": 2}, "1152 tokens left of 2 images .* 576 to 1152"),
        ("llava-next-vicuna-7b", {"images": 3, "image_size": (336, 336)}, "of 3 images"),
        ("llava-1.5-7b", {"images": 2}, None),
    ],
)  # fmt: skip
def test_hired_on_tiles_says_that_the_picture_decides(model, asked, says) -> None:
    told = [w for w in estimate(model, A100, method="hired", **asked).warnings if "hired" in w]
    if says is None:
        assert told == []
    else:
        assert len(told) == 1
        assert re.search(says, told[0])
