"""Gemma 3: every image is 256 tokens, which see each other whatever their order; modeling_gemma3.py.

An image is resized to the tower's square, whatever its size. Pan-and-scan, off by default in class and
checkpoints (processing_gemma3.py), adds crops of long images: `max_tiles=4` of them at most as their paper
has it. The words that the processor writes between them are the prompt's, not counted here.
"""

from __future__ import annotations

from dataclasses import replace
from math import isqrt
from typing import TYPE_CHECKING

from costmodel.blocks import Norm, Pool, Shuffle, dense
from costmodel.models.decoders.gated import kinds_of, with_blocks
from costmodel.models.families.family import Family
from costmodel.models.model import MOST_TILES
from costmodel.models.processors import Processor, check
from costmodel.models.projector import ProjectorConfig
from costmodel.models.tiles import TileGeometry, pan_and_scan

if TYPE_CHECKING:
    from costmodel.models.reading import Section
    from costmodel.models.text import TextConfig
    from costmodel.models.vision import VisionConfig


#: What the processor assumes of the crops of pan-and-scan: pixels of the narrowest, most of them, and from
#: which ratio of an image's sides on there are any.
_NARROWEST, _CROPS, _RATIO = 256, 4, 1.2


def _side(outer: Section, vision: VisionConfig) -> int:
    """Patches along a side of what becomes one token."""
    tokens = outer.whole("mm_tokens_per_image")
    side = isqrt(tokens)
    if side**2 != tokens or vision.grid % side:
        raise outer.fail("mm_tokens_per_image", f"({tokens}) does not tile {vision.grid}^2 patches")
    return vision.grid // side


def _geometry(outer: Section, vision: VisionConfig) -> TileGeometry:
    tokens = vision.patches // _side(outer, vision) ** 2
    return TileGeometry(tokens, side=_NARROWEST, tiles=pan_and_scan, more=(_RATIO,))


def _processed(geometry: TileGeometry, said: Processor) -> TileGeometry:
    check(said.whole, "image_seq_length", geometry.tokens_per_crop, "the tokens of an image")
    image = said.image
    if image is None or "do_pan_and_scan" not in image or not image.flag("do_pan_and_scan"):
        return geometry
    image.defaults = {
        "pan_and_scan_min_crop_size": _NARROWEST,
        "pan_and_scan_max_num_crops": _CROPS,
        "pan_and_scan_min_ratio_to_activate": _RATIO,
    }
    return replace(
        geometry,
        side=image.whole("pan_and_scan_min_crop_size"),
        most_tiles=image.whole("pan_and_scan_max_num_crops", least=2, most=MOST_TILES),
        more=(image.number("pan_and_scan_min_ratio_to_activate"),),
    )


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
    tiles="apart",
    sees_whole_images=True,
    joined=_joined,
    geometry=_geometry,
    processed=_processed,
    bridge=_bridge,
)
