"""Qwen2.5-VL: images of their own resolution, windows in the tower; modeling_qwen2_5_vl.py.

The fewest and most pixels of an image are those of the checkpoints' preprocessor_config.json: 56^2 and
16,384 tokens of 28^2. The class of the image processor on its own assumes 1,280 tokens at most. A clip's
pairs of frames are resized each by itself; checkpoints take up to 768 of them with at most 768 tokens
(video_processing_qwen2_vl.py, qwen-vl-utils).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costmodel.blocks import Shuffle
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

#: Fewest and most tokens of an image, and of a pair of frames.
TOKENS, VIDEO_TOKENS = (4, 16384), (128, 768)


def _geometry(_outer: Section, vision: VisionConfig) -> NativeGeometry:
    return native_geometry(vision, TOKENS, VIDEO_TOKENS)


def _bridge(outer: Section, vision: VisionConfig, text: TextConfig) -> ProjectorConfig:
    order = Shuffle("raster_order", text.hidden_size, "projected")
    return merged_bridge(outer, vision, text, "rms", (order,))


def _rescale(document: dict[str, Any]) -> None:
    """The merger's width is the language model's; at least the last layer sees all."""
    seen = document["vision_config"]
    seen["out_hidden_size"] = document.get("text_config", document)["hidden_size"]
    full = seen.get("fullatt_block_indexes", [7, 15, 23, 31])
    depth = seen["depth"]
    seen["fullatt_block_indexes"] = [i for i in full if i < depth] or [depth - 1]


FAMILY = Family(
    model_type="qwen2_5_vl",
    label="Qwen2.5-VL",
    classes=("Qwen2_5_VLForConditionalGeneration",),
    defaults=DEFAULTS,
    decoder="qwen2_5_vl_text",
    tower="qwen2_5_vl_vision",
    flat=True,
    merges=True,
    reads_values=True,
    selects_features=False,
    tied_by_text=True,
    geometry=_geometry,
    processed=processed,
    bridge=_bridge,
    rescale=_rescale,
)
