"""LLaVA-OneVision: many tiles, shrunk; frames pooled after the projector; against processor and model."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from costmodel.models import config_dict, get_family, load_model

VISION = "llava-onevision-7b"
SIZES = st.integers(1, 4000)
FIXTURES = [HealthCheck.function_scoped_fixture]


@given(height=SIZES, width=SIZES)
@settings(max_examples=1500, deadline=None, suppress_health_check=FIXTURES)
@example(899, 1024)
@example(2304, 2304)
def test_tokens_equal_the_processors(processor_tokens, height: int, width: int) -> None:
    from transformers.models.llava_onevision.processing_llava_onevision import (
        LlavaOnevisionProcessor,
    )

    expected = processor_tokens(LlavaOnevisionProcessor, VISION, height, width)
    assert load_model(VISION).visual_input(image_size=(height, width)).tokens == expected


@given(height=SIZES, width=SIZES)
@settings(max_examples=600, deadline=None)
def test_crops_equal_what_the_model_sends_through_the_tower(height: int, width: int) -> None:
    from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

    got = load_model(VISION).visual_input(image_size=(height, width))
    pinpoints = config_dict(VISION)["image_grid_pinpoints"]
    assert got.crops == image_size_to_num_patches([height, width], pinpoints, 384)
    assert got.projected_tokens == got.crops * 729


@given(height=SIZES, width=SIZES)
@settings(max_examples=300, deadline=None, suppress_health_check=FIXTURES)
def test_tokens_equal_the_rows_the_model_packs(packed_rows, height: int, width: int) -> None:
    from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel

    got = load_model(VISION).visual_input(image_size=(height, width))
    assert packed_rows(LlavaOnevisionModel, VISION, got.crops, height, width) == got.tokens


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
