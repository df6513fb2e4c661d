"""LLaVA-NeXT: tiles and the whole image, newlines, padding taken off."""

from __future__ import annotations

from costmodel.models import load_model

NEXT = "llava-next-vicuna-7b"


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
