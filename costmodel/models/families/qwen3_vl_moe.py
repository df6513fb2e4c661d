"""Qwen3-VL with experts: all but the language model's MLP is Qwen3-VL's; modeling_qwen3_vl_moe.py."""

from __future__ import annotations

from dataclasses import replace

from costmodel.models.families import qwen3_vl

FAMILY = replace(
    qwen3_vl.FAMILY,
    model_type="qwen3_vl_moe",
    label="Qwen3-VL MoE",
    classes=("Qwen3VLMoeForConditionalGeneration",),
    decoder="qwen3_vl_moe_text",
    tower="qwen3_vl_moe_vision",
)
