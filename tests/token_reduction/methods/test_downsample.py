"""Downsampling: sizes, squares, and that a model sees what a smaller picture would be."""

from __future__ import annotations

import pytest
import torch

from costmodel import estimate, solve_schedule
from hardware_specs.errors import InvalidInputError, UnsupportedError
from token_reduction.downsample import downsample, downsample_native

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"


@pytest.mark.parametrize(
    ("keep", "side"), [(144, 12), (0.25, 12), (1, 1), (0.1, 8), (576, 24), (0.001, 1)]
)
def test_sizes(draw, keep, side) -> None:
    assert downsample(draw(2, 3, 336, 336), keep, patch=14).shape == (2, 3, 14 * side, 14 * side)


def test_a_flat_picture_stays_flat_and_the_mean_is_kept(draw) -> None:
    flat = torch.full((1, 3, 56, 56), 0.3)
    torch.testing.assert_close(downsample(flat, 4, patch=14), torch.full((1, 3, 28, 28), 0.3))
    ramp = torch.linspace(0, 1, 56).expand(1, 3, 56, 56)
    assert downsample(ramp, 4, patch=14).mean().item() == pytest.approx(0.5, abs=1e-3)


def test_every_size_is_itself(draw) -> None:
    pixels = draw(1, 3, 56, 56)
    torch.testing.assert_close(downsample(pixels, 16, patch=14), pixels, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "keep", "message"),
    [
        ((1, 3, 56, 56), 5, "give 4 or 9"),
        ((1, 3, 56, 56), 25, "more tokens than the 16"),
        ((1, 3, 56, 42), 4, "square crops"),
        ((3, 56, 56), 4, "square crops"),
    ],
)
def test_what_does_not_fit(draw, shape, keep, message) -> None:
    with pytest.raises(InvalidInputError, match=message):
        downsample(draw(*shape), keep, patch=14)


def test_the_tower_is_cheaper() -> None:
    plain, cost = estimate(MODEL, A100), estimate(MODEL, A100, method="downsample")
    assert cost.mean_visual_tokens == 144
    # Products over 145 tokens instead of 577, and attention by its square.
    c, layers = 1024, 24
    embed = 2 * 144 * 3 * 14**2 * c
    layer = 2 * 145 * (4 * c * c + 2 * c * 4096) + 4 * 145**2 * c
    assert cost.stages["vision"].flops == embed + layers * layer
    assert cost.stages["vision"].flops < 0.25 * plain.stages["vision"].flops
    with pytest.raises(UnsupportedError, match="merges 4 patches"):
        estimate("internvl3-2b", A100, method="downsample")


def _laid_out(image, patch, merge):
    """Patches of a clip [frames, 3, h, w] as Qwen's processors lay them out, one by one."""
    frames, _, height, width = image.shape
    found = []
    for t in range(0, frames, 2):
        for row in range(0, height // patch, merge):
            for column in range(0, width // patch, merge):
                for down in range(merge):
                    for right in range(merge):
                        y, x = (row + down) * patch, (column + right) * patch
                        cell = image[t : t + 2, :, y : y + patch, x : x + patch]
                        found.append(cell.transpose(0, 1).flatten())
    return torch.stack(found)


def test_images_of_their_own_resolution(draw) -> None:
    """A clip of two pairs of frames and an image, each resized by itself."""
    shapes = [(4, 3, 24, 40), (2, 3, 16, 16)]
    images = [draw(*shape, seed=number) for number, shape in enumerate(shapes)]
    grids = torch.tensor([[2, 6, 10], [1, 4, 4]])
    patches = torch.cat([_laid_out(image, 4, 2) for image in images])
    found, new = downsample_native(patches, grids, 0.3, patch=4, tubelet=2, merge=2)
    assert new.tolist() == [[2, 4, 6], [1, 2, 2]]
    expected = [
        _laid_out(
            torch.nn.functional.interpolate(image, size, mode="bicubic", antialias=True), 4, 2
        )
        for image, size in zip(images, [(16, 24), (8, 8)], strict=True)
    ]  # fmt: skip
    torch.testing.assert_close(found, torch.cat(expected))
    with pytest.raises(InvalidInputError, match="give a ratio"):
        downsample_native(patches, grids, 9, patch=4, tubelet=2, merge=2)
    with pytest.raises(InvalidInputError, match="of its grids"):
        downsample_native(patches[1:], grids, 0.3, patch=4, tubelet=2, merge=2)


def test_native_images_are_priced_as_smaller_ones() -> None:
    asked = {"calibration": None, "text_tokens": 40}
    reduced = estimate("qwen2.5-vl-7b", A100, method="downsample", image_size="1080p", **asked)
    smaller = estimate("qwen2.5-vl-7b", A100, image_size=(20 * 28, 34 * 28), **asked)
    # 39 x 69 tokens become 20 x 34.
    assert reduced.visual_tokens_by_layer == ((28, 20 * 34),)
    for stage in ("vision", "projector", "prefill"):
        assert reduced.stages[stage].flops == smaller.stages[stage].flops
    solved = solve_schedule("qwen2.5-vl-7b", "downsample", mean_tokens=324)
    # 18 x 18 of 37 x 37 tokens.
    assert (solved.method.given_keep, solved.mean_visual_tokens) == (0.224, 324)
    bare = estimate("qwen2.5-vl-7b", A100, method="downsample", visual_tokens=1000, **asked)
    assert bare.mean_visual_tokens == 250
    with pytest.raises(InvalidInputError, match="give a ratio"):
        estimate("qwen2.5-vl-7b", A100, method="downsample", keep=144)


def test_every_count_and_small_images_are_priced() -> None:
    """364 tokens are those of a pair of frames, too; four tokens become one."""
    costs = [
        estimate("qwen2.5-vl-7b", A100, method="downsample", visual_tokens=count)
        for count in (363, 364, 365, 1)
    ]
    assert [cost.mean_visual_tokens for cost in costs] == [91, 91, 91, 1]
    small = estimate("qwen2.5-vl-7b", A100, method="downsample", keep=0.1, image_size=(56, 56))
    assert small.mean_visual_tokens == 1
