"""From a Hugging Face config to a model: one reader per `model_type`.

Each reader is told by what `transformers` builds for that type (modeling_llava.py,
modeling_llava_next.py, modeling_llava_next_video.py, modeling_video_llava.py,
modeling_llava_onevision.py): towers, projector, newline token, pooling, tiles and frames.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from costmodel.models.anyres import AnyRes
from costmodel.models.defaults import MULTIMODAL, TEXT, VISION
from costmodel.models.model import ModelConfig, VideoRule
from costmodel.models.parts import read_projector, read_text, read_vision
from costmodel.models.reading import Section

if TYPE_CHECKING:
    from costmodel.models.vision import VisionConfig

#: What people call the models of a `model_type`.
FAMILIES = {
    "llava": "LLaVA",
    "llava_next": "LLaVA-NeXT",
    "llava_next_video": "LLaVA-NeXT-Video",
    "video_llava": "Video-LLaVA",
    "llava_onevision": "LLaVA-OneVision",
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
}

#: The parts of a multimodal model whose config does not name them.
_DEFAULT_PARTS = {"llava_onevision": ("qwen2", "siglip_vision_model")}

#: Models that tie head and embedding also when only their text_config says so.
_TIED_BY_TEXT = ("llava", "llava_next_video", "llava_onevision")

#: Frames of a clip as the models' papers and published evaluations take them.
DEFAULT_FRAMES = 8

#: A language model on its own must say at least this much.
_REQUIRED_TEXT = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
)


def read_model(document: dict[str, Any], file: str, name: str, source: str) -> ModelConfig:
    """Return the model that a Hugging Face config describes.

    Args:
        document: the config.json as parsed.
        file: its name, for messages.
        name: the model's.
        source: where the config comes from.

    Raises:
        InvalidFileError: a model type the project does not know, a missing key, an impossible value.

    >>> read_model({"model_type": "gpt2"}, "config.json", "gpt2", "here")
    Traceback (most recent call last):
    hardware_specs.errors.InvalidFileError: config.json: model_type is 'gpt2'; this project knows \
llava, llava_next, llava_next_video, video_llava, llava_onevision, llama, mistral, qwen2
    """
    outer = Section(document, file)
    if "model_type" not in outer:
        raise outer.fail("model_type", f"is missing; this project knows {', '.join(FAMILIES)}")
    if "mm_vision_tower" in outer and "vision_config" not in outer:
        raise outer.fail(
            "mm_vision_tower",
            "shows a checkpoint in LLaVA's own format; give its Hugging Face conversion, such as "
            "llava-hf/llava-1.5-7b-hf",
        )
    model_type = outer.word("model_type", tuple(FAMILIES))
    if model_type in TEXT:
        return _text_model(outer, model_type, name, source)
    return _multimodal(outer, model_type, name, source)


def _text_model(outer: Section, model_type: str, name: str, source: str) -> ModelConfig:
    for key in _REQUIRED_TEXT:
        if key not in outer:
            raise outer.fail(key, "is missing")
    text = read_text(outer, model_type)
    return ModelConfig(
        name, model_type, FAMILIES[model_type], text, None, None, 0, 0, 0, 0, source,
        from_defaults=tuple(outer.used), config_json=json.dumps(outer.values),
    )  # fmt: skip


def _multimodal(outer: Section, model_type: str, name: str, source: str) -> ModelConfig:
    outer.defaults = MULTIMODAL[model_type]
    text_type, vision_type = _DEFAULT_PARTS.get(model_type, ("llama", "clip_vision_model"))
    inner = outer.section("text_config", defaults={"model_type": text_type})
    text = read_text(
        inner,
        inner.word("model_type", tuple(TEXT)),
        tied=outer.flag("tie_word_embeddings") or (None if model_type in _TIED_BY_TEXT else False),
    )
    seen = outer.section("vision_config", defaults={"model_type": vision_type})
    copies = 2 if model_type == "video_llava" else 1
    vision = read_vision(seen, outer, seen.word("model_type", tuple(VISION)), copies)
    if vision.selected_tokens < 1:
        raise seen.fail("image_size", "leaves no token that the projector could read")
    anyres = _anyres(outer, model_type, vision)
    video, extra = _video(outer, model_type, vision)
    if anyres is not None:
        extra += text.hidden_size  # the newline token's embedding
    model = ModelConfig(
        name, model_type, FAMILIES[model_type], text, vision, read_projector(outer, vision, text),
        extra, vision.selected_tokens, 0, 0, source, anyres, video,
        tuple(outer.used), json.dumps(outer.values),
    )  # fmt: skip
    usual = model.visual_input()
    object.__setattr__(model, "default_visual_tokens", usual.tokens)
    object.__setattr__(model, "default_crops", usual.crops)
    return model


def _anyres(outer: Section, model_type: str, vision: VisionConfig) -> AnyRes | None:
    """How the model cuts images into tiles, if it does."""
    if "image_grid_pinpoints" not in outer.defaults:
        return None
    if vision.selected_tokens != vision.patches:
        raise outer.fail(
            "vision_feature_select_strategy",
            f"{vision.feature_select!r} leaves {vision.selected_tokens} features of a crop's "
            f"{vision.patches} patches, which no grid of tiles can be made of",
        )
    most = None
    if model_type == "llava_onevision":
        shape = outer.word("vision_aspect_ratio")
        number = re.fullmatch(r"anyres_max_([1-9]\d{0,5})", shape)
        if number is None:
            raise outer.fail("vision_aspect_ratio", f"must be like anyres_max_9, not {shape!r}")
        most = int(number[1])
    resolutions = _resolutions(outer, vision.image_size)
    return AnyRes(resolutions, vision.image_size, vision.grid, most)


def _resolutions(outer: Section, side: int) -> tuple[tuple[int, int], ...]:
    key = "image_grid_pinpoints"
    value = outer.raw(key)
    if value is None:
        value = outer.defaults[key]
    if not isinstance(value, list) or not value or len(value) > 10_000:
        raise outer.fail(key, "must be a list of [height, width] in pixels")
    sizes = []
    for size in value:
        good = isinstance(size, list) and len(size) == 2 and all(type(n) is int for n in size)
        if not good or not all(0 < n <= 1_000_000 and n % side == 0 for n in size):
            raise outer.fail(
                key, f"holds {size!r}; each must be [height, width], multiples of image_size {side}"
            )
        sizes.append((size[0], size[1]))
    return tuple(sizes)


def _video(outer: Section, model_type: str, vision: VisionConfig) -> tuple[VideoRule | None, int]:
    """How the model turns frames into tokens, and the parameters that takes."""
    if model_type == "video_llava":
        # The video path of `transformers` keeps the class token whatever the strategy says.
        rule = VideoRule(DEFAULT_FRAMES, vision.patches, vision.tokens, vision.patches)
        return rule, 0
    if model_type == "llava_onevision":
        # Projected first, then shrunk bilinearly to half the side, rounded up; one newline at the end.
        pooled = (-(-vision.grid // 2)) ** 2
        return VideoRule(0, pooled, pooled, vision.selected_tokens, 1), 0
    if model_type != "llava_next_video":
        return None, 0
    mode = outer.word("spatial_pool_mode", ("average", "max", "conv"))
    stride = outer.whole("spatial_pool_stride", most=vision.grid)
    pooled = (vision.grid // stride) ** 2
    extra = 0
    if mode == "conv":
        c = vision.hidden_size
        if outer.values.get("spatial_pool_out_channels", c) != c:
            raise outer.fail("spatial_pool_out_channels", f"must equal the tower's width {c}")
        extra = c * c * stride**2 + c
    return VideoRule(DEFAULT_FRAMES, pooled, pooled, pooled), extra
