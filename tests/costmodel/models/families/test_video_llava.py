"""Video-LLaVA: two towers; the class token of every frame goes along."""

from __future__ import annotations

import pytest

from costmodel.models import get_family, load_model

VIDEO = "video-llava-7b"


def test_a_clip_is_the_default() -> None:
    model = load_model(VIDEO)
    assert model.takes_clips
    # 8 frames of 16 x 16 patches; transformers keeps the class token of every frame.
    assert model.visual_input() == (8 * 256, 8, 8 * 256)
    assert model.visual_input(count="transformers") == (8 * 257, 8, 8 * 257)


@pytest.mark.parametrize("frames", [1, 3])
def test_clips_equal_what_transformers_makes_of_them(clip_rows, frames: int) -> None:
    got = load_model(VIDEO).visual_input(frames=frames, count="transformers")
    assert (got.tokens, got.crops) == (frames * 257, frames)
    assert clip_rows(VIDEO, frames) == got.tokens


def test_it_sees_an_image_through_one_crop() -> None:
    assert load_model(VIDEO).visual_input(image_size=(480, 640)) == (256, 1, 256)


def test_its_class_tokens_and_its_towers() -> None:
    model = load_model(VIDEO)
    assert model.video is not None
    assert model.vision is not None
    assert get_family("video_llava").class_token_in_clips == model.video.carries_class_token
    assert model.vision.parameters == 2 * model.vision.tower_parameters
