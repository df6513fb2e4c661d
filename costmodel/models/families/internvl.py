"""InternVL3 and 3.5 in `transformers`' own format: 448-pixel tiles of 256 tokens; modeling_internvl.py.

Whether an image is cut into tiles is the caller's choice (`crop_to_patches`, off by default both in the
class and in the checkpoints' preprocessor_config.json): `max_tiles=12` cuts as their papers do. A frame of
a clip is one tile.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from costmodel.blocks import Activate, Norm, Shuffle, dense
from costmodel.models.families.family import LLAVA_DEFAULTS, Family
from costmodel.models.model import MOST_TILES
from costmodel.models.processors import Processor, check
from costmodel.models.projector import ProjectorConfig
from costmodel.models.tiles import TileGeometry, closest_tiles, frames_alone

if TYPE_CHECKING:
    from costmodel.models.reading import Section
    from costmodel.models.text import TextConfig
    from costmodel.models.vision import VisionConfig


#: Tiles of an image that is cut, where the processor's class alone says how many.
TILES = 12


def _merged(outer: Section, vision: VisionConfig) -> int:
    """Patches along a side of what becomes one token."""
    ratio = outer.number("downsample_ratio")
    side = int(1 / ratio) if 0 < ratio <= 1 else 0
    if not side or vision.grid % side:
        raise outer.fail("downsample_ratio", f"({ratio}) does not tile {vision.grid}^2 patches")
    return side


def _geometry(outer: Section, vision: VisionConfig) -> TileGeometry:
    if vision.selected_tokens != vision.patches:
        raise outer.fail(
            "vision_feature_select_strategy", "must be 'default': patches alone are tiled"
        )
    tokens = vision.patches // _merged(outer, vision) ** 2
    return TileGeometry(
        tokens, video=frames_alone(tokens), side=vision.image_size, tiles=closest_tiles
    )


def _processed(geometry: TileGeometry, said: Processor) -> TileGeometry:
    check(said.whole, "image_seq_length", geometry.tokens_per_crop, "the tokens of a tile")
    image = said.image
    if image is None or "crop_to_patches" not in image or not image.flag("crop_to_patches"):
        return geometry
    check(image, "min_patches", 1, "what is priced")
    tiles = image.whole("max_patches", most=MOST_TILES) if "max_patches" in image else TILES
    return replace(geometry, most_tiles=tiles)


def _bridge(outer: Section, vision: VisionConfig, text: TextConfig) -> ProjectorConfig:
    function, d = outer.word("projector_hidden_act"), text.hidden_size
    k = vision.hidden_size * _merged(outer, vision) ** 2
    blocks = (
        Shuffle("patches_alone", k, "projected"),
        Shuffle("shuffle_columns", k, "projected"),
        Shuffle("shuffle_rows", k, "projected"),
        Norm("projector_norm", k, "projected", "layer"),
        dense("linear_1", k, d, "projected", bias=True),
        Activate("gelu", d, "projected", function),
        dense("linear_2", d, d, "projected", bias=True),
    )
    return ProjectorConfig(k, d, d, True, function, blocks)


_DEFAULTS: dict[str, Any] = {
    key: value for key, value in LLAVA_DEFAULTS.items() if key != "multimodal_projector_bias"
} | {"vision_feature_layer": -1, "downsample_ratio": 0.5, "tie_word_embeddings": True}

FAMILY = Family(
    model_type="internvl",
    label="InternVL",
    classes=("InternVLForConditionalGeneration",),
    defaults=_DEFAULTS,
    decoder="qwen2",
    tower="internvl_vision",
    geometry=_geometry,
    processed=_processed,
    merges=True,
    tiles="in a row",
    frames_as_images=True,
    bridge=_bridge,
)
