"""LLaVA-NeXT: tiles and the whole image, newlines, padding taken off; against processor and model."""

from __future__ import annotations

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from costmodel.models import config_dict, load_model

NEXT = "llava-next-vicuna-7b"
SIZES = st.integers(1, 4000)
FIXTURES = [HealthCheck.function_scoped_fixture]


@given(height=SIZES, width=SIZES)
@settings(max_examples=1500, deadline=None, suppress_health_check=FIXTURES)
@example(480, 640)
@example(1, 4000)
@example(4000, 1)
@example(336, 336)
def test_tokens_equal_the_processors(processor_tokens, height: int, width: int) -> None:
    from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor

    expected = processor_tokens(LlavaNextProcessor, NEXT, height, width)
    assert load_model(NEXT).visual_input(image_size=(height, width)).tokens == expected


@given(height=SIZES, width=SIZES)
@settings(max_examples=600, deadline=None)
def test_crops_equal_what_the_model_sends_through_the_tower(height: int, width: int) -> None:
    from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

    got = load_model(NEXT).visual_input(image_size=(height, width))
    pinpoints = config_dict(NEXT)["image_grid_pinpoints"]
    assert got.crops == image_size_to_num_patches([height, width], pinpoints, 336)
    assert got.projected_tokens == got.crops * 576


@given(height=SIZES, width=SIZES)
@settings(max_examples=300, deadline=None, suppress_health_check=FIXTURES)
def test_tokens_equal_the_rows_the_model_packs(packed_rows, height: int, width: int) -> None:
    from transformers.models.llava_next.modeling_llava_next import LlavaNextModel

    got = load_model(NEXT).visual_input(image_size=(height, width))
    rows = packed_rows(
        LlavaNextModel, NEXT, got.crops, height, width, vision_feature_select_strategy="default"
    )
    assert rows == got.tokens


def test_defaults_are_what_papers_count() -> None:
    model = load_model(NEXT)
    # (2 x 2 tiles + the whole image) x 576; transformers adds a newline for each of the 48 rows.
    assert model.visual_input() == (2880, 5, 2880)
    assert model.visual_input(count="transformers") == (2880 + 48, 5, 2880)
    assert (model.default_visual_tokens, model.default_crops) == (2880, 5)


def test_the_4_3_image_loses_a_quarter_of_its_grid() -> None:
    # 48 x 48 tiles' features, of which 36 rows show the image: 576 + 36 x 48 + 36
    assert load_model(NEXT).visual_input(image_size=(480, 640)).tokens == 2340


def test_the_newline_token_is_a_parameter() -> None:
    assert load_model(NEXT).extra_parameters == 4096
