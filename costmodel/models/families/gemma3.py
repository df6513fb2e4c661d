"""Gemma 3: every image is 256 tokens, which see each other whatever their order; modeling_gemma3.py.

An image is resized to the tower's square, whatever its size; pan-and-scan, off by default, is not read.
"""

from __future__ import annotations

from dataclasses import replace
from math import isqrt
from typing import TYPE_CHECKING

from costmodel.blocks import Norm, Pool, Shuffle, dense
from costmodel.models.decoders.gated import kinds_of, with_blocks
from costmodel.models.families.family import Family
from costmodel.models.geometry import CropGeometry
from costmodel.models.projector import ProjectorConfig

if TYPE_CHECKING:
    from costmodel.models.reading import Section
    from costmodel.models.text import TextConfig
    from costmodel.models.vision import VisionConfig


def _side(outer: Section, vision: VisionConfig) -> int:
    """Patches along a side of what becomes one token."""
    tokens = outer.whole("mm_tokens_per_image")
    side = isqrt(tokens)
    if side**2 != tokens or vision.grid % side:
        raise outer.fail("mm_tokens_per_image", f"({tokens}) does not tile {vision.grid}^2 patches")
    return vision.grid // side


def _geometry(outer: Section, vision: VisionConfig) -> CropGeometry:
    return CropGeometry(vision.patches // _side(outer, vision) ** 2)


def _bridge(outer: Section, vision: VisionConfig, text: TextConfig) -> ProjectorConfig:
    c, d, pooled = vision.hidden_size, text.hidden_size, _side(outer, vision) ** 2
    blocks = (
        Shuffle("channels_first", c * pooled, "projected"),
        Pool("average", c, "projected", pooled),
        Norm("soft_norm", c, "projected", "rms", offset=True),
        dense("projection", c, d, "projected"),
    )
    return ProjectorConfig(c, c, d, False, "none", blocks, by_plan=True)


def _joined(outer: Section, text: TextConfig, vision: VisionConfig) -> TextConfig:
    seen = vision.patches // _side(outer, vision) ** 2
    return with_blocks(replace(text, both_ways=seen), kinds_of(text))


FAMILY = Family(
    model_type="gemma3",
    label="Gemma 3",
    classes=("Gemma3ForConditionalGeneration",),
    defaults={"tie_word_embeddings": True, "mm_tokens_per_image": 256},
    decoder="gemma3_text",
    tower="siglip_vision_model",
    selects_features=False,
    merges=True,
    sees_whole_images=True,
    joined=_joined,
    geometry=_geometry,
    bridge=_bridge,
)
