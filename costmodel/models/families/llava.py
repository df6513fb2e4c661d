"""LLaVA-1.5: one square crop per image, two linear layers; modeling_llava.py of `transformers`."""

from __future__ import annotations

from costmodel.models.families.family import Family

FAMILY = Family(
    model_type="llava",
    label="LLaVA",
    classes=("LlavaForConditionalGeneration",),
    tied_by_text=True,
)
