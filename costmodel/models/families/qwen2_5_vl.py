"""Qwen2.5-VL: images of their own resolution, windows in the tower; modeling_qwen2_5_vl.py.

The fewest and most pixels of an image are those of the checkpoints' preprocessor_config.json: 56^2 and
16,384 tokens of 28^2. The class of the image processor on its own assumes 1,280 tokens at most. A clip's
pairs of frames are resized each by itself; checkpoints take up to 768 of them with at most 768 tokens
(video_processing_qwen2_vl.py, qwen-vl-utils).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from costmodel.models.families.native import NativeFamily, merged_bridge, native_geometry

#: Fewest and most tokens of an image, and of a pair of frames.
TOKENS, VIDEO_TOKENS = (4, 16384), (128, 768)


def _rescale(document: dict[str, Any]) -> None:
    """The merger's width is the language model's; at least the last layer sees all."""
    seen = document["vision_config"]
    seen["out_hidden_size"] = document.get("text_config", document)["hidden_size"]
    full = seen.get("fullatt_block_indexes", [7, 15, 23, 31])
    depth = seen["depth"]
    seen["fullatt_block_indexes"] = [i for i in full if i < depth] or [depth - 1]


FAMILY = NativeFamily(
    model_type="qwen2_5_vl",
    label="Qwen2.5-VL",
    classes=("Qwen2_5_VLForConditionalGeneration",),
    decoder="qwen2_5_vl_text",
    tower="qwen2_5_vl_vision",
    flat=True,
    tied_by_text=True,
    geometry=lambda _, vision: native_geometry(vision, TOKENS, VIDEO_TOKENS),
    bridge=partial(merged_bridge, norm="rms"),
    rescale=_rescale,
)
