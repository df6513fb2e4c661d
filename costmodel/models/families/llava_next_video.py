"""LLaVA-NeXT-Video: tiles for images, frames pooled before the projector; modeling_llava_next_video.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costmodel.models.families.family import DEFAULT_FRAMES, Family
from costmodel.models.families.tiled import NEXT_DEFAULTS, newline, read_tiles
from costmodel.models.geometry import CropGeometry, VideoRule

if TYPE_CHECKING:
    from costmodel.models.reading import Section
    from costmodel.models.text import TextConfig
    from costmodel.models.vision import VisionConfig

_MODE, _STRIDE, _CHANNELS = "spatial_pool_mode", "spatial_pool_stride", "spatial_pool_out_channels"


def _geometry(outer: Section, vision: VisionConfig) -> CropGeometry:
    tiles = read_tiles(outer, vision)
    outer.word(_MODE, ("average", "max", "conv"))
    pooled = (vision.grid // outer.whole(_STRIDE, most=vision.grid)) ** 2
    return CropGeometry(
        vision.selected_tokens, tiles, VideoRule(DEFAULT_FRAMES, pooled, pooled, pooled)
    )


def _extra(outer: Section, vision: VisionConfig, text: TextConfig) -> int:
    """The newline token, and the convolution where it is one that pools."""
    extra = newline(outer, vision, text)
    if outer.word(_MODE) == "conv":
        c = vision.hidden_size
        if outer.values.get(_CHANNELS, c) != c:
            raise outer.fail(_CHANNELS, f"must equal the tower's width {c}")
        extra += c * c * outer.whole(_STRIDE) ** 2 + c
    return extra


def _rescale(document: dict[str, Any]) -> None:
    if _CHANNELS in document:
        document[_CHANNELS] = document["vision_config"]["hidden_size"]


FAMILY = Family(
    model_type="llava_next_video",
    label="LLaVA-NeXT-Video",
    classes=("LlavaNextVideoForConditionalGeneration",),
    defaults=NEXT_DEFAULTS | {_MODE: "average", _STRIDE: 2},
    tied_by_text=True,
    geometry=_geometry,
    extra_parameters=_extra,
    rescale=_rescale,
    pools_frames="before projector",
)
