"""LLaVA-OneVision: many tiles, shrunk; frames pooled after the projector."""

from __future__ import annotations

import pytest

from costmodel.models import get_family, load_model

VISION = "llava-onevision-7b"


def test_defaults_are_what_papers_count() -> None:
    model = load_model(VISION)
    # (9 tiles + the whole image) x 729; transformers adds a newline for each of the 81 rows.
    assert model.visual_input() == (7290, 10, 7290)
    assert model.visual_input(count="transformers") == (7290 + 81, 10, 7290)


@pytest.mark.parametrize("frames", [1, 3])
def test_clips_equal_what_transformers_makes_of_them(clip_rows, frames: int) -> None:
    got = load_model(VISION).visual_input(frames=frames, count="transformers")
    assert (got.tokens, got.crops) == (frames * 196 + 1, frames)
    # transformers 5.23 joins the newline in get_video_features, 5.17 right after it.
    assert got.tokens - clip_rows(VISION, frames) in {0, 1}


def test_it_projects_before_it_pools() -> None:
    assert load_model(VISION).visual_input(frames=32) == (32 * 196 + 1, 32, 32 * 729)
    family, rule = get_family("llava_onevision"), load_model(VISION).video
    assert rule is not None
    assert family.pools_frames == "after projector"
    assert rule.tokens_per_frame < rule.projected_per_frame
    assert (family.newline_ends_clips, rule.tail_tokens) == (True, 1)
