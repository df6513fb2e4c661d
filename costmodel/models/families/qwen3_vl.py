"""Qwen3-VL: images of their own resolution, deepstack into the first layers; modeling_qwen3_vl.py.

The fewest and most pixels of an image are those of the checkpoints' preprocessor_config.json: 64 and
16,384 tokens of 32^2. A clip has one budget, of 4 to 24,576 tokens' pixels over all its frames, as their
video_preprocessor_config.json has it; two frames are one token deep, and their time is text before them
(processing_qwen3_vl.py).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from costmodel.models.decoders.gated import with_deepstack
from costmodel.models.families.native import NativeFamily, merged_bridge, native_geometry

#: Fewest and most tokens of an image, and tokens' worth of pixels over the frames of a clip.
TOKENS, VIDEO_TOKENS = (64, 16384), (4, 24576)


def _rescale(document: dict[str, Any]) -> None:
    """The merger's width is the language model's; of few layers each still gives a feature."""
    seen, text = document["vision_config"], document["text_config"]
    seen["out_hidden_size"] = text["hidden_size"]
    behind = seen.get("deepstack_visual_indexes", [8, 16, 24])
    some = min(len(behind), seen["depth"], text["num_hidden_layers"])
    if max(behind, default=0) >= seen["depth"] or some < len(behind):
        seen["deepstack_visual_indexes"] = list(range(some))


FAMILY = NativeFamily(
    model_type="qwen3_vl",
    label="Qwen3-VL",
    classes=("Qwen3VLForConditionalGeneration",),
    decoder="qwen3_vl_text",
    tower="qwen3_vl_vision",
    geometry=lambda _, vision: native_geometry(
        vision, TOKENS, VIDEO_TOKENS, clip_budget=True, timestamps=True
    ),
    bridge=partial(merged_bridge, norm="layer"),
    joined=lambda _, text, vision: with_deepstack(text, vision.deepstack),
    rescale=_rescale,
)
