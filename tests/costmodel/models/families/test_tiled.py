"""Families that cut images into tiles, against the processors and models of `transformers`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from costmodel.models import config_dict, load_model

#: Model -> its folder and the stem of its classes' names, and what packing its features takes beside them.
TILED: dict[str, tuple[str, str, dict[str, str]]] = {
    "llava-next-vicuna-7b": (
        "llava_next", "LlavaNext", {"vision_feature_select_strategy": "default"},
    ),
    "llava-onevision-7b": ("llava_onevision", "LlavaOnevision", {}),
}  # fmt: skip
SIZES = st.integers(1, 4000)
FIXTURES = [HealthCheck.function_scoped_fixture]


def theirs(name: str, kind: str) -> Any:
    """A model's class, or that of its processor, in `transformers`."""
    folder, stem, _ = TILED[name]
    file = {"Model": "modeling", "Processor": "processing"}[kind]
    return getattr(import_module(f"transformers.models.{folder}.{file}_{folder}"), stem + kind)


@pytest.mark.parametrize("name", TILED)
@given(height=SIZES, width=SIZES)
@settings(max_examples=1500, deadline=None, suppress_health_check=FIXTURES)
@example(480, 640)
@example(1, 4000)
@example(4000, 1)
@example(336, 336)
@example(899, 1024)
@example(2304, 2304)
def test_tokens_equal_the_processors(processor_tokens, name: str, height: int, width: int) -> None:
    expected = processor_tokens(theirs(name, "Processor"), name, height, width)
    assert load_model(name).visual_input(image_size=(height, width)).tokens == expected


@pytest.mark.parametrize("name", TILED)
@given(height=SIZES, width=SIZES)
@settings(max_examples=600, deadline=None)
def test_crops_equal_what_the_model_sends_through_the_tower(name, height: int, width: int) -> None:
    from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

    model = load_model(name)
    got = model.visual_input(image_size=(height, width))
    pinpoints = config_dict(name)["image_grid_pinpoints"]
    side, patches = model.vision.image_size, model.vision.patches
    assert got.crops == image_size_to_num_patches([height, width], pinpoints, side)
    assert got.projected_tokens == got.crops * patches


@pytest.mark.parametrize("name", TILED)
@given(height=SIZES, width=SIZES)
@settings(max_examples=300, deadline=None, suppress_health_check=FIXTURES)
def test_tokens_equal_the_rows_the_model_packs(packed_rows, name, height: int, width: int) -> None:
    got = load_model(name).visual_input(image_size=(height, width))
    rows = packed_rows(theirs(name, "Model"), name, got.crops, height, width, **TILED[name][2])
    assert rows == got.tokens
