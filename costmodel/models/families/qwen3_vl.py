"""Qwen3-VL: images of their own resolution, deepstack into the first layers; modeling_qwen3_vl.py.

The fewest and most pixels of an image are those of the checkpoints' preprocessor_config.json: 64 and
16,384 tokens of 32^2. A clip has one budget, of 4 to 24,576 tokens' pixels over all its frames, as their
video_preprocessor_config.json has it; two frames are one token deep,
and their time is text before them (processing_qwen3_vl.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costmodel.models.decoders.gated import with_deepstack
from costmodel.models.families.family import Family
from costmodel.models.families.native import (
    DEFAULTS,
    merged_bridge,
    native_geometry,
    processed,
)

if TYPE_CHECKING:
    from costmodel.models.native import NativeGeometry
    from costmodel.models.projector import ProjectorConfig
    from costmodel.models.reading import Section
    from costmodel.models.text import TextConfig
    from costmodel.models.vision import VisionConfig

#: Fewest and most tokens of an image, and tokens' worth of pixels over the frames of a clip.
TOKENS, VIDEO_TOKENS = (64, 16384), (4, 24576)


def _geometry(_outer: Section, vision: VisionConfig) -> NativeGeometry:
    return native_geometry(vision, TOKENS, VIDEO_TOKENS, clip_budget=True, timestamps=True)


def _bridge(outer: Section, vision: VisionConfig, text: TextConfig) -> ProjectorConfig:
    return merged_bridge(outer, vision, text, "layer")


def _rescale(document: dict[str, Any]) -> None:
    """The merger's width is the language model's; of few layers each still gives a feature."""
    seen, text = document["vision_config"], document["text_config"]
    seen["out_hidden_size"] = text["hidden_size"]
    behind = seen.get("deepstack_visual_indexes", [8, 16, 24])
    some = min(len(behind), seen["depth"], text["num_hidden_layers"])
    if max(behind, default=0) >= seen["depth"] or some < len(behind):
        seen["deepstack_visual_indexes"] = list(range(some))


FAMILY = Family(
    model_type="qwen3_vl",
    label="Qwen3-VL",
    classes=("Qwen3VLForConditionalGeneration",),
    defaults=DEFAULTS,
    decoder="qwen3_vl_text",
    tower="qwen3_vl_vision",
    selects_features=False,
    merges=True,
    reads_values=True,
    geometry=_geometry,
    processed=processed,
    bridge=_bridge,
    joined=lambda _, text, vision: with_deepstack(text, vision.deepstack),
    rescale=_rescale,
)
