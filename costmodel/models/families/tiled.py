"""What families that cut images into tiles share: LLaVA-NeXT's grids and its newline token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.models.anyres import AnyRes
from costmodel.models.families.family import LLAVA_DEFAULTS

if TYPE_CHECKING:
    from costmodel.models.reading import Section
    from costmodel.models.text import TextConfig
    from costmodel.models.vision import VisionConfig

#: What LLaVA-NeXT's config class assumes.
NEXT_DEFAULTS = LLAVA_DEFAULTS | {
    "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
}


def newline(_outer: Section, _vision: VisionConfig, text: TextConfig) -> int:
    """Parameters of the token that ends a row of tiles."""
    return text.hidden_size


def read_tiles(outer: Section, vision: VisionConfig, most: int | None = None) -> AnyRes:
    """Return how a config cuts images into tiles.

    Raises:
        InvalidFileError: patches and features that differ in number, resolutions that are none, or no
            multiples of the crop.
    """
    if vision.selected_tokens != vision.patches:
        raise outer.fail(
            "vision_feature_select_strategy",
            f"{vision.feature_select!r} leaves {vision.selected_tokens} features of a crop's "
            f"{vision.patches} patches, which no grid of tiles can be made of",
        )
    key, side = "image_grid_pinpoints", vision.image_size
    value = outer.raw(key)
    if value is None:
        value = outer.defaults[key]
    if not isinstance(value, list) or not value or len(value) > 10_000:
        raise outer.fail(key, "must be a list of [height, width] in pixels")
    sizes = []
    for size in value:
        good = isinstance(size, list) and len(size) == 2 and all(type(n) is int for n in size)
        if not good or not all(0 < n <= 1_000_000 and n % side == 0 for n in size):
            raise outer.fail(
                key, f"holds {size!r}; each must be [height, width], multiples of image_size {side}"
            )
        sizes.append((size[0], size[1]))
    return AnyRes(tuple(sizes), side, vision.grid, most)
