"""How many images a prompt has: given, read from a count of visual tokens, or from sizes.

| kind                       | siblings tried                                     | result            |
|----------------------------|----------------------------------------------------|-------------------|
| number of images           | 0, 1, 2, 12 on five families                       | to the unit       |
| bare count                 | one image's, multiples of 730, others, beyond one  | as documented     |
| ambiguous count            | tiles, several images, frames, on four families    | warned            |
| sizes                      | one for all, one for each, mismatched              | priced or refused |
| images beside other inputs | frames, too many tokens, a text model              | refused           |
| other questions            | sweep with every method, break_even, conventions   | as `estimate`     |
"""

from __future__ import annotations

from typing import Any

import pytest

from costmodel import break_even, estimate, load_model, sweep
from costmodel.methods import list_methods
from hardware_specs.errors import InvalidInputError, VlmRooflineError

A100 = "nvidia-a100-sxm4-80gb"
ONE, NEXT, VISION = "llava-1.5-7b", "llava-next-vicuna-7b", "llava-onevision-7b"
CLIP, POOLED = "video-llava-7b", "llava-next-video-7b"
#: FLOPs of one crop through OneVision's tower and projector: 6.418 T / 10 and 247.5 G / 10.
TOWER, BRIDGE = 641_801_428_992, 24_747_835_392


@pytest.mark.parametrize(
    ("model", "images", "tokens", "crops"),
    [
        (ONE, 1, 576, 1), (ONE, 2, 1152, 2), (ONE, 12, 6912, 12),
        (NEXT, 1, 2880, 5), (NEXT, 2, 5760, 10), (NEXT, 12, 34560, 60),
        (VISION, 1, 7290, 10), (VISION, 2, 1460, 2), (VISION, 12, 8760, 12),
        (CLIP, 1, 256, 1), (CLIP, 2, 512, 2), (CLIP, 12, 3072, 12),
        (POOLED, 1, 2880, 5), (POOLED, 2, 5760, 10), (POOLED, 12, 34560, 60),
        (ONE, 0, 0, 0), (VISION, 0, 0, 0),
    ],
)  # fmt: skip
def test_so_many_images(model: str, images: int, tokens: int, crops: int) -> None:
    cost = estimate(model, A100, images=images)
    given = cost.inputs
    assert (given["images"], given["visual_tokens"], given["crops"]) == (images, tokens, crops)
    assert not [warning for warning in cost.warnings if "priced as" in warning]
    one = estimate(model, A100, images=1)
    if crops:
        for stage in ("vision", "projector"):
            each = one.stages[stage].flops / one.inputs["crops"]
            assert cost.stages[stage].flops == crops * each


@pytest.mark.parametrize(("tokens", "images"), [(1460, 2), (8760, 12), (7300, 10), (14580, 20)])
@pytest.mark.parametrize("said", [False, True])
def test_several_images_are_one_crop_each(tokens: int, images: int, said: bool) -> None:
    cost = estimate(VISION, A100, visual_tokens=tokens, **({"images": images} if said else {}))
    assert (cost.inputs["images"], cost.inputs["crops"]) == (images, images)
    assert cost.stages["vision"].flops == images * TOWER
    assert cost.stages["projector"].flops == images * BRIDGE


@pytest.mark.parametrize("tokens", [1, 64, 729, 730, 1461, 7290, 7371])
def test_other_counts_are_one_image(tokens: int) -> None:
    cost = estimate(VISION, A100, visual_tokens=tokens)
    assert cost.inputs["crops"] == 10
    assert cost.stages["vision"].flops == 10 * TOWER


@pytest.mark.parametrize(
    ("model", "tokens", "priced", "others"),
    [
        (VISION, 1460, "2 images (2 crops)", ["one image (10 crops)"]),
        (VISION, 1485, "1 image (10 crops)", ["384x384", "(2 crops)"]),  # 729 + 27 x 27 + 27
        (VISION, 1569, "1 image (10 crops)", ["a video of 8 frames"]),  # 8 x 196 + 1
        (NEXT, 1176, "1 image (5 crops)", ["one image of 336x336", "(3 crops)"]),
        (NEXT, 5760, "2 images (10 crops)", ["images of other sizes"]),
        (POOLED, 2880, "3 videos (24 frames)", ["1 image (5 crops)", "a video of 20 frames"]),
        (CLIP, 512, "1 video (8 frames)", ["2 images (2 crops)", "a video of 2 frames"]),
    ],
)
def test_an_ambiguous_count_says_so(
    model: str, tokens: int, priced: str, others: list[str]
) -> None:
    (warning,) = (
        text for text in estimate(model, A100, visual_tokens=tokens).warnings if "priced as" in text
    )
    assert f"{tokens} visual tokens are priced as {priced}" in warning
    assert all(other in warning for other in others)
    assert "images=" in warning


@pytest.mark.parametrize(
    ("model", "given"),
    [
        (ONE, {"visual_tokens": 64}), (ONE, {"visual_tokens": 1152}), (VISION, {"visual_tokens": 64}),
        (VISION, {"visual_tokens": 7290}), (NEXT, {"visual_tokens": 576}), (NEXT, {}),
        (VISION, {"visual_tokens": 1460, "images": 2}), (VISION, {"visual_tokens": 1460, "images": 1}),
        (VISION, {"image_size": (384, 384), "visual_tokens": 1485}), (POOLED, {"frames": 20}),
    ],
)  # fmt: skip
def test_a_plain_count_says_nothing(model: str, given: dict[str, Any]) -> None:
    assert not [w for w in estimate(model, A100, **given).warnings if "priced as" in w]


def test_sizes_one_for_each() -> None:
    sizes = ((480, 640), (336, 336))
    cost = estimate(NEXT, A100, image_size=sizes)
    alone = [load_model(NEXT).visual_input(image_size=size) for size in sizes]
    assert cost.inputs["images"] == 2
    assert cost.inputs["visual_tokens"] == sum(one.tokens for one in alone)
    assert cost.inputs["crops"] == sum(one.crops for one in alone)
    assert cost.inputs["image_size"] == [(480, 640), (336, 336)]
    twice = estimate(NEXT, A100, images=2, image_size=(480, 640))
    assert twice.inputs["visual_tokens"] == 2 * 2340
    parts = [{"image_size": size, "method": "divprune", "keep": 64} for size in sizes]
    together = estimate(NEXT, A100, image_size=sizes, method="divprune", keep=64)
    own = sum(estimate(NEXT, A100, **part).stages["reduction"].flops for part in parts)
    assert together.stages["reduction"].flops == own
    told = estimate(NEXT, A100, image_size=sizes, method="divprune", keep=64, visual_tokens=3000)
    assert any("equally many of each of 2 images" in text for text in told.warnings)
    assert not estimate(NEXT, A100, image_size=sizes, visual_tokens=0).warnings
    # In a sweep, too, whatever other counts stand beside theirs.
    counts = [cost.inputs["visual_tokens"], 3000, cost.inputs["visual_tokens"]]
    rows = sweep(
        NEXT, A100, image_size=[sizes], visual_tokens=counts, method="divprune", keep=64,
        stage_columns=True,
    )  # fmt: skip
    each = [own, told.stages["reduction"].flops, own]
    assert rows["reduction_flops"].tolist() == each


@pytest.mark.parametrize(
    ("model", "given", "says"),
    [
        (ONE, {"images": 2, "visual_tokens": 1153}, "2 images of this size give 1152"),
        (VISION, {"images": 2, "visual_tokens": 7290}, "give 1460 visual tokens"),
        (VISION, {"images": 2, "frames": 8}, "frames to a clip"),
        (NEXT, {"images": 3, "image_size": ((1, 2), (3, 4))}, "2 image sizes were given for 3"),
        (ONE, {"images": -1}, "images must be a whole number from 0"),
        (ONE, {"images": [1, 2]}, "sweep takes lists"),
        ("llama-2-7b", {"images": 1}, "no vision tower"),
    ],
)
def test_what_cannot_be_is_refused(model: str, given: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        estimate(model, A100, **given)


def test_divprune_keeps_so_many_of_each_image() -> None:
    two = estimate(VISION, A100, visual_tokens=1460, method="divprune", keep=64)
    bare = estimate(VISION, A100, visual_tokens=128, images=2)
    assert two.stages["prefill"].flops == bare.stages["prefill"].flops
    assert two.memory.kv_cache_bytes == bare.memory.kv_cache_bytes


@pytest.mark.parametrize("method", [None, *list_methods()])
@pytest.mark.parametrize("model", [ONE, NEXT, VISION])
def test_a_sweep_over_images_is_its_estimates(model: str, method: str | None) -> None:
    given: dict[str, Any] = {"method": method, "output_tokens": 2, "text_tokens": 40}
    try:
        costs = [estimate(model, A100, images=images, **given) for images in (1, 2, 3)]
    except VlmRooflineError as error:
        pytest.skip(f"a method this model does not fit: {error}")
    table = sweep(model, A100, images=[1, 2, 3], **given)
    assert list(table.images) == [1, 2, 3]
    assert list(table.flops) == pytest.approx([cost.totals.flops for cost in costs], rel=1e-12)
    assert list(table.peak_memory_bytes) == [cost.memory.peak_memory_bytes for cost in costs]


@pytest.mark.parametrize("model", [ONE, NEXT, VISION, CLIP])
def test_a_sweep_over_counts_is_its_estimates(model: str) -> None:
    counts = [0, 64, 576, 730, 1460, 2880, 7290, 7300, 8760, 20000]
    table = sweep(model, A100, visual_tokens=counts)
    for row, count in zip(table.itertuples(), counts, strict=True):
        cost = estimate(model, A100, visual_tokens=count)
        assert (row.images, row.crops) == (cost.inputs["images"], cost.inputs["crops"])
        assert row.flops == pytest.approx(cost.totals.flops, rel=1e-12)


def test_rows_without_a_price_keep_their_images() -> None:
    table = sweep(VISION, A100, images=[1, 2], visual_tokens=[1461], errors="keep")
    assert list(table.images) == [1, 2]
    assert list(table.error.notna()) == [False, True]


def test_break_even_is_of_one_image_or_of_so_many() -> None:
    one = break_even(VISION, A100)
    assert len(one.visual_tokens) == 7290
    # 1460 tokens left of one image, not two images.
    assert one.ttft_s[1459] >= one.ttft_s[1458]
    assert len(break_even(VISION, A100, images=2).visual_tokens) == 1460


def test_conventions_count_the_images() -> None:
    cost = estimate(VISION, A100, images=2, convention="fastv")
    assert cost.inputs["visual_tokens"] == 1460
