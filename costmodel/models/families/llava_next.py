"""LLaVA-NeXT (1.6): an image is tiles and the whole; modeling_llava_next.py of `transformers`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.models.families.family import Family
from costmodel.models.families.tiled import NEXT_DEFAULTS, check_grid, newline, read_tiles
from costmodel.models.geometry import CropGeometry

if TYPE_CHECKING:
    from costmodel.models.reading import Section
    from costmodel.models.vision import VisionConfig


def _geometry(outer: Section, vision: VisionConfig) -> CropGeometry:
    check_grid(outer, vision)
    return CropGeometry(vision.selected_tokens, read_tiles(outer, vision))


FAMILY = Family(
    model_type="llava_next",
    label="LLaVA-NeXT",
    classes=("LlavaNextForConditionalGeneration",),
    defaults=NEXT_DEFAULTS,
    geometry=_geometry,
    extra_parameters=newline,
)
