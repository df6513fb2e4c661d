"""Images cut into tiles of the tower's size, each of which becomes tokens of its own."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import ceil, floor
from typing import TYPE_CHECKING

from costmodel.models.geometry import CropGeometry, VideoRule, VisualInput

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True)
class TileGeometry(CropGeometry):
    """Tiles, and the whole image beside them where there are several.

    Attributes:
        side: pixels along a side of a tile.
        most_tiles: tiles of an image; what it means, the rule says.
        tiles: from (height, width) in pixels, the side, `most_tiles` and `more` to the crops of an image.
        default: (height, width) of the default image in pixels.
        more: what else the rule takes.
    """

    side: int = 0
    most_tiles: int = 1
    tiles: Callable[..., int] = field(default=lambda *_: 1, compare=False)
    default: tuple[int, int] = (1024, 1024)
    more: tuple[float, ...] = ()

    def budget(self, *, clip: bool) -> dict[str, int]:
        """Return the tiles of an image; a frame is one crop."""
        return {} if clip else {"max_tiles": self.most_tiles}

    def limited(self, budget: Mapping[str, int]) -> TileGeometry:
        """Return the same with another number of tiles."""
        return replace(self, most_tiles=budget.get("max_tiles", self.most_tiles))

    def image(self, size: tuple[int, int] | None, *, exact: bool) -> VisualInput:  # noqa: ARG002
        """Return what an image gives: the tokens of a tile for every crop."""
        crops = self.tiles(*(size or self.default), self.side, self.most_tiles, *self.more)
        tokens = crops * self.tokens_per_crop
        return VisualInput(tokens, crops, tokens)


def frames_alone(tokens: int) -> VideoRule:
    """Return the rule of models that take every frame of a clip as one crop."""
    return VideoRule(0, tokens, tokens, tokens, as_tiles=True)


def closest_tiles(height: int, width: int, side: int, most: int) -> int:
    """Return the crops of an image that is cut to the grid whose aspect is closest to its own.

    Of grids as close as each other the one of more tiles wins, as long as its area is less than twice
    the image's. Several tiles are joined by the whole image. `get_optimal_tiled_canvas` of
    image_processing_got_ocr2.py, which InternVL uses.

    >>> closest_tiles(448, 896, 448, 12), closest_tiles(1000, 1000, 448, 12), closest_tiles(999, 999, 448, 1)
    (3, 10, 1)
    """
    grids = [(w, h) for w in range(1, most + 1) for h in range(1, most // w + 1)]
    best, least = (1, 1), float("inf")
    for columns, rows in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        away = abs(width / height - columns / rows)
        roomy = height * width > 0.5 * side**2 * columns * rows
        if away < least or (away == least and roomy):
            best, least = (columns, rows), away
    tiles = best[0] * best[1]
    return tiles + (tiles > 1)


def pan_and_scan(height: int, width: int, side: int, most: int, ratio: float) -> int:
    """Return the crops of an image that is cut along its longer side, the whole image beside them.

    `pan_and_scan` of image_processing_pil_gemma3.py: as many squares as fit, from two to `most`, where one
    side is at least `ratio` times the other and none is narrower than `side`.

    >>> [pan_and_scan(*size, 256, 4, 1.2) for size in ((1000, 1000), (1080, 1920), (300, 4000), (200, 400))]
    [1, 3, 5, 1]
    """
    longer, shorter = max(height, width), min(height, width)
    if most < 2 or longer / shorter < ratio:
        return 1
    cut = min(max(2, min(longer // side, floor(longer / shorter + 0.5))), most)
    return 1 if min(ceil(longer / cut), shorter) < side else 1 + cut


#: No side of an image is resized beyond this by Idefics3's processor.
_LONGEST = 4096


def split_tiles(height: int, width: int, side: int, most: int) -> int:
    """Return the crops of an image whose longer edge is resized to so many tiles, then cut into them.

    `get_number_of_image_patches` of image_processing_smolvlm.py: the other edge follows, even, and is
    filled up to whole tiles; several of them are joined by the whole image.

    >>> split_tiles(1080, 1920, 384, 4), split_tiles(100, 100, 384, 4), split_tiles(100, 100, 384, 1)
    (13, 17, 1)
    """
    longest = min(most * side, _LONGEST)
    shorter = int(longest * min(height, width) / max(height, width))
    shorter = max(shorter + shorter % 2, 1)
    height, width = (shorter, longest) if width >= height else (longest, shorter)
    tiles = -(-height // side) * -(-width // side)
    return tiles + (tiles > 1)
