"""Qwen2-VL: images of their own resolution, full attention in the tower; modeling_qwen2_vl.py.

Budgets of pixels are Qwen2.5-VL's: so are the checkpoints' preprocessor_config.json.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from costmodel.models.families import qwen2_5_vl
from costmodel.models.families.native import merged_bridge


def _rescale(document: dict[str, Any]) -> None:
    """The merger's width is the language model's."""
    width = document.get("text_config", document)["hidden_size"]
    document["vision_config"]["hidden_size"] = width


FAMILY = replace(
    qwen2_5_vl.FAMILY,
    model_type="qwen2_vl",
    label="Qwen2-VL",
    classes=("Qwen2VLForConditionalGeneration",),
    decoder="qwen2_vl_text",
    tower="qwen2_vl_vision",
    bridge=partial(merged_bridge, norm="layer", width="hidden_size"),
    rescale=_rescale,
)
