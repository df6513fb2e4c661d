"""LLaVA-NeXT (1.6): an image is tiles and the whole; modeling_llava_next.py of `transformers`."""

from __future__ import annotations

from costmodel.models.families.family import Family
from costmodel.models.families.tiled import NEXT_DEFAULTS, newline, read_tiles
from costmodel.models.geometry import CropGeometry

FAMILY = Family(
    model_type="llava_next",
    label="LLaVA-NeXT",
    classes=("LlavaNextForConditionalGeneration",),
    defaults=NEXT_DEFAULTS,
    geometry=lambda outer, vision: CropGeometry(vision.selected_tokens, read_tiles(outer, vision)),
    extra_parameters=newline,
)
