"""Idefics3: tiles of the tower's size, shuffled to few tokens by one linear layer; modeling_idefics3.py.

The longer edge of an image becomes four tiles (`size` of the processor, class and checkpoints alike), or
`max_tiles` of them. Tokens of text between the tiles are the prompt's, not counted here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from costmodel.blocks import Shuffle, dense
from costmodel.models.families.family import Family
from costmodel.models.model import MOST_TILES
from costmodel.models.processors import Processor, check
from costmodel.models.projector import ProjectorConfig
from costmodel.models.tiles import TileGeometry, split_tiles

if TYPE_CHECKING:
    from costmodel.models.reading import Section
    from costmodel.models.text import TextConfig
    from costmodel.models.vision import VisionConfig

#: Tiles along the longer edge.
TILES = 4


def _scale(outer: Section, vision: VisionConfig) -> int:
    """Patches along a side of what becomes one token."""
    scale: int = outer.whole("scale_factor", most=1000)
    if vision.grid % scale:
        raise outer.fail("scale_factor", f"({scale}) does not tile {vision.grid}^2 patches")
    return scale


def geometry(outer: Section, vision: VisionConfig) -> TileGeometry:
    """Return the tiles of an image."""
    tokens = vision.patches // _scale(outer, vision) ** 2
    return TileGeometry(tokens, side=vision.image_size, most_tiles=TILES, tiles=split_tiles)


def processed(geometry: TileGeometry, said: Processor) -> TileGeometry:
    """Return the tiles of an image as a checkpoint's processor cuts it.

    Raises:
        InvalidFileError: tiles that are not the tower's, or no whole number of them.
    """
    check(said.whole, "image_seq_len", geometry.tokens_per_crop, "the tokens of a tile")
    image, side = said.image, geometry.side
    if image is None:
        return geometry
    if "max_image_size" in image:
        check(image.section("max_image_size"), "longest_edge", side, "the tower's side")
    if "do_image_splitting" in image and not image.flag("do_image_splitting"):
        return replace(geometry, most_tiles=1)
    if "size" not in image:
        return geometry
    longest = image.section("size").whole("longest_edge", most=MOST_TILES * side)
    if longest % side:
        raise image.fail("size.longest_edge", f"({longest}) must be a multiple of a tile's {side}")
    return replace(geometry, most_tiles=longest // side)


def _bridge(outer: Section, vision: VisionConfig, text: TextConfig) -> ProjectorConfig:
    k, d = vision.hidden_size * _scale(outer, vision) ** 2, text.hidden_size
    blocks = (
        Shuffle("shuffle_columns", k, "projected"),
        Shuffle("shuffle_rows", k, "projected"),
        dense("projection", k, d, "projected"),
    )
    return ProjectorConfig(k, k, d, False, "none", blocks)


FAMILY = Family(
    model_type="idefics3",
    label="Idefics3",
    classes=("Idefics3ForConditionalGeneration",),
    defaults={"tie_word_embeddings": False, "scale_factor": 2},
    decoder="llama",
    tower="idefics3_vision",
    selects_features=False,
    merges=True,
    reads_values=True,
    pixels_by_sample=True,
    tiles="overview last",
    geometry=geometry,
    processed=processed,
    bridge=_bridge,
)
