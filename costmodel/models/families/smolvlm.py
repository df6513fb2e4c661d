"""SmolVLM and SmolVLM2: Idefics3 made small, which takes clips frame by frame; modeling_smolvlm.py."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from costmodel.models.families import idefics3
from costmodel.models.tiles import TileGeometry, frames_alone

if TYPE_CHECKING:
    from costmodel.models.reading import Section
    from costmodel.models.vision import VisionConfig


def _geometry(outer: Section, vision: VisionConfig) -> TileGeometry:
    tiled = idefics3.geometry(outer, vision)
    return replace(tiled, video=frames_alone(tiled.tokens_per_crop))


FAMILY = replace(
    idefics3.FAMILY,
    model_type="smolvlm",
    label="SmolVLM",
    classes=("SmolVLMForConditionalGeneration",),
    tower="smolvlm_vision",
    frames_as_images=True,
    geometry=_geometry,
)
