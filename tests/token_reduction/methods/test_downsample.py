"""Downsampling: sizes, squares, and that a model sees what a smaller picture would be."""

from __future__ import annotations

import pytest
import torch

from costmodel import estimate
from hardware_specs.errors import InvalidInputError, UnsupportedError
from token_reduction.downsample import downsample

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
    with pytest.raises(UnsupportedError):
        estimate("qwen2.5-vl-7b", A100, method="downsample")
