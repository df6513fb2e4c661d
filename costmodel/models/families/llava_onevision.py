"""LLaVA-OneVision: many tiles, shrunk where there are too many; modeling_llava_onevision.py.

One image alone is cut into tiles. Several images in one prompt are one crop each, unpooled, with one
newline token: 729 + 1 tokens an image (`batch_num_images` in transformers; arXiv 2408.03326, section
3.2). A bare count of visual tokens that is a multiple (2 or more) of those 730 is therefore read as so
many images, and any count above what one image can give as well; every other count is one image.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from costmodel.models.families.family import LLAVA_DEFAULTS, Family
from costmodel.models.families.tiled import newline, read_tiles
from costmodel.models.geometry import CropGeometry, VideoRule, VisualInput

if TYPE_CHECKING:
    from costmodel.models.reading import Section
    from costmodel.models.vision import VisionConfig


def _geometry(outer: Section, vision: VisionConfig) -> CropGeometry:
    shape = outer.word("vision_aspect_ratio")
    number = re.fullmatch(r"anyres_max_([1-9]\d{0,5})", shape)
    if number is None:
        raise outer.fail("vision_aspect_ratio", f"must be like anyres_max_9, not {shape!r}")
    tiles = read_tiles(outer, vision, int(number[1]))
    # Projected first, then shrunk bilinearly to half the side, rounded up; one newline at the end.
    pooled = (-(-vision.grid // 2)) ** 2
    rule = VideoRule(0, pooled, pooled, vision.selected_tokens, tail_tokens=1)
    crop = vision.selected_tokens
    return CropGeometry(crop, tiles, rule, VisualInput(crop + 1, 1, crop))


FAMILY = Family(
    model_type="llava_onevision",
    label="LLaVA-OneVision",
    classes=("LlavaOnevisionForConditionalGeneration",),
    defaults=LLAVA_DEFAULTS
    | {
        "vision_feature_select_strategy": "full",
        "vision_feature_layer": -1,
        "vision_aspect_ratio": "anyres_max_9",
        "image_grid_pinpoints": [
            [384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)
        ],
    },
    decoder="qwen2",
    tower="siglip_vision_model",
    tied_by_text=True,
    geometry=_geometry,
    extra_parameters=newline,
    pools_frames="after projector",
    newline_ends_clips=True,
)
