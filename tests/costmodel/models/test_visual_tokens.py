"""Visual tokens of images and clips, against transformers' processors and models."""

from __future__ import annotations

from functools import cache, partial
from types import SimpleNamespace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from costmodel.models import config_dict, load_model
from hardware_specs.errors import InvalidInputError

SIZES = st.integers(1, 4000)
NEXT = "llava-next-vicuna-7b"
VISION = "llava-onevision-7b"


@cache
def processor(name: str) -> SimpleNamespace:
    """Whatever transformers' processor methods read of the processor, with no tokenizer."""
    from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor
    from transformers.models.llava_onevision.processing_llava_onevision import (
        LlavaOnevisionProcessor,
    )

    config = config_dict(name)
    kind = LlavaOnevisionProcessor if name == VISION else LlavaNextProcessor
    fake = SimpleNamespace(
        image_processor=SimpleNamespace(image_grid_pinpoints=config["image_grid_pinpoints"]),
        patch_size=14,
        num_additional_image_tokens=0 if name == VISION else 1,
        num_image_tokens=729,
        vision_aspect_ratio=config.get("vision_aspect_ratio"),
    )
    fake._get_unpadded_features = partial(kind._get_unpadded_features, fake)
    fake.count = partial(kind._get_number_of_features, fake)
    return fake


def expected_tokens(name: str, height: int, width: int) -> int:
    """The processor's count; the strategy `default` takes the class token off again."""
    model = load_model(name)
    side = model.vision.image_size
    return processor(name).count(height, width, side, side) - model.vision.has_cls


@given(height=SIZES, width=SIZES)
@settings(max_examples=1500, deadline=None)
@example(480, 640)
@example(1, 4000)
@example(4000, 1)
@example(336, 336)
def test_llava_next_tokens_equal_the_processors(height, width):
    got = load_model(NEXT).visual_input(image_size=(height, width))
    assert got.tokens == expected_tokens(NEXT, height, width)


@given(height=SIZES, width=SIZES)
@settings(max_examples=1500, deadline=None)
@example(899, 1024)
@example(2304, 2304)
def test_onevision_tokens_equal_the_processors(height, width):
    got = load_model(VISION).visual_input(image_size=(height, width))
    assert got.tokens == expected_tokens(VISION, height, width)


@given(height=SIZES, width=SIZES)
@settings(max_examples=600, deadline=None)
def test_crops_equal_what_the_models_send_through_the_tower(height, width):
    from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

    for name in (NEXT, VISION):
        model = load_model(name)
        got = model.visual_input(image_size=(height, width))
        side = model.vision.image_size
        pinpoints = config_dict(name)["image_grid_pinpoints"]
        assert got.crops == image_size_to_num_patches([height, width], pinpoints, side)
        assert got.projected_tokens == got.crops * model.vision.patches


@given(height=SIZES, width=SIZES)
@settings(max_examples=300, deadline=None)
def test_tokens_equal_the_rows_the_models_pack(height, width):
    """Not the processor's arithmetic but real features, cut, unpadded, shrunk and joined."""
    import torch
    from transformers.models.llava_next.modeling_llava_next import LlavaNextModel
    from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel

    for name in (NEXT, VISION):
        model = load_model(name)
        got = model.visual_input(image_size=(height, width))
        config = SimpleNamespace(
            vision_config=SimpleNamespace(
                image_size=model.vision.image_size, patch_size=model.vision.patch_size
            ),
            image_grid_pinpoints=config_dict(name)["image_grid_pinpoints"],
        )
        features = [torch.zeros(got.crops, model.vision.patches, 1)]
        arguments = {"image_newline": torch.zeros(1)}
        if name == NEXT:
            arguments["vision_feature_select_strategy"] = "default"
        kind = LlavaNextModel if name == NEXT else LlavaOnevisionModel
        packed, lengths = kind.pack_image_features(
            SimpleNamespace(config=config), features, [[height, width]], **arguments
        )
        assert len(packed[0]) == int(lengths[0]) == got.tokens


def video_features(name: str, frames: int) -> int:
    """Rows of features that transformers makes of a clip, on the meta device."""
    import torch
    from transformers import AutoConfig, AutoModel

    values = config_dict(f"{name}@layers=1,width=1/4")
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    with torch.device("meta"), torch.no_grad():
        model = AutoModel.from_config(config)
        side = config.vision_config.image_size
        out = model.get_video_features(torch.zeros(1, frames, 3, side, side), return_dict=True)
    rows = out.pooler_output
    return sum(row.shape[:-1].numel() for row in rows)


@pytest.mark.parametrize(
    ("name", "each", "tail"),
    [("video-llava-7b", 257, 0), ("llava-next-video-7b", 144, 0), (VISION, 196, 1)],
)
@pytest.mark.parametrize("frames", [1, 3])
def test_clips_equal_what_transformers_makes_of_them(name, each, tail, frames):
    got = load_model(name).visual_input(frames=frames, count="transformers")
    assert got.tokens == frames * each + tail
    assert got.crops == frames
    # transformers 5.23 joins OneVision's newline in get_video_features, 5.17 right after it.
    assert got.tokens - video_features(name, frames) in {0, tail}


def test_a_fixed_crop_sees_every_image_alike():
    model = load_model("llava-1.5-7b")
    for size in (None, (336, 336), (1, 5000), (2000, 2000)):
        assert model.visual_input(image_size=size) == (576, 1, 576)


def test_defaults_are_what_papers_count():
    expected = {
        "llava-1.5-7b": (576, 1, 576),
        NEXT: (2880, 5, 2880),  # (2 x 2 tiles + the whole image) x 576
        VISION: (7290, 10, 7290),  # (9 tiles + the whole image) x 729
        "video-llava-7b": (2048, 8, 2048),  # 8 frames x 16 x 16 patches
        "llava-next-video-7b": (1152, 8, 1152),  # 8 frames x 12 x 12 pooled
        "llama-2-7b": (0, 0, 0),
    }
    for name, counts in expected.items():
        model = load_model(name)
        assert model.visual_input() == counts
        assert (model.default_visual_tokens, model.default_crops) == counts[:2]


def test_transformers_adds_newlines_and_class_tokens():
    def exact(name: str) -> tuple[int, int, int]:
        return load_model(name).visual_input(count="transformers")

    assert exact(NEXT) == (2880 + 48, 5, 2880)  # a newline for each of the 48 rows
    assert exact(VISION) == (7290 + 81, 10, 7290)
    assert exact("video-llava-7b") == (8 * 257, 8, 8 * 257)  # every frame keeps its class token


def test_the_4_3_image_loses_a_quarter_of_its_grid():
    # 48 x 48 tiles' features, of which 36 rows show the image: 576 + 36 x 48 + 36
    assert load_model(NEXT).visual_input(image_size=(480, 640)).tokens == 2340


def test_a_video_model_sees_an_image_through_one_crop():
    model = load_model("video-llava-7b")
    assert model.visual_input(image_size=(480, 640)) == (256, 1, 256)


def test_onevision_projects_before_it_pools():
    got = load_model(VISION).visual_input(frames=32)
    assert got == (32 * 196 + 1, 32, 32 * 729)


@pytest.mark.parametrize("size", [(0, 5), (5, -1), (1.5, 2), (5,), "ab", 7, (True, 5), (10**7, 5)])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(InvalidInputError, match="image"):
        load_model(NEXT).visual_input(image_size=size)


@pytest.mark.parametrize("frames", [0, -3, 1.5, True, "8", 10**9])
def test_frames_that_are_none_are_refused(frames):
    with pytest.raises(InvalidInputError, match="frames must be a whole number"):
        load_model("video-llava-7b").visual_input(frames=frames)


def test_questions_a_model_cannot_answer_are_refused():
    with pytest.raises(InvalidInputError, match="takes images, not frames"):
        load_model("llava-1.5-7b").visual_input(frames=8)
    with pytest.raises(InvalidInputError, match="no vision tower"):
        load_model("llama-2-7b").visual_input(image_size=(10, 10))
    with pytest.raises(InvalidInputError, match="give one"):
        load_model("video-llava-7b").visual_input(image_size=(10, 10), frames=2)
    with pytest.raises(InvalidInputError, match="count must be"):
        load_model("llava-1.5-7b").visual_input(count="guess")
