"""LLaVA-NeXT-Video: frames pooled before the projector."""

from __future__ import annotations

import pytest

from costmodel.models import config_dict, get_family, load_model
from costmodel.models.families import read_model

CLIPS = "llava-next-video-7b"


def test_a_clip_is_the_default() -> None:
    model = load_model(CLIPS)
    assert model.takes_clips
    assert model.visual_input() == (8 * 144, 8, 8 * 144)  # 12 x 12 pooled patches a frame


@pytest.mark.parametrize("frames", [1, 3])
def test_clips_equal_what_transformers_makes_of_them(clip_rows, frames: int) -> None:
    got = load_model(CLIPS).visual_input(frames=frames, count="transformers")
    assert got == (frames * 144, frames, frames * 144)
    assert clip_rows(CLIPS, frames) == got.tokens


def test_it_pools_before_it_projects() -> None:
    rule, vision = load_model(CLIPS).video, load_model(CLIPS).vision
    assert rule is not None
    assert vision is not None
    assert get_family("llava_next_video").pools_frames == "before projector"
    assert rule.projected_per_frame < vision.patches


def test_a_convolution_that_pools_scales_with_the_tower() -> None:
    document = config_dict(f"{CLIPS}@layers=1,width=1/4") | {"spatial_pool_mode": "conv"}
    assert document["spatial_pool_out_channels"] == 256
    model = read_model(document, "config.json", "small", "test")
    # The newline token, and 256 x 256 x 2 x 2 with 256 biases.
    assert model.extra_parameters == 1024 + 256 * 256 * 4 + 256
