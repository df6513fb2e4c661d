"""Any-resolution images: the tiles an image is cut into, and the tokens that are left of them.

An image is fitted into the best of a list of resolutions, each a multiple of the tower's crop; the
tiles and one crop of the whole image go through the tower. The tiles' features, laid out as one grid,
lose the rows or columns that show only padding, get shrunk where there are too many
(LLaVA-OneVision), and end every row with a newline token. Source: LLaVA-NeXT (blog of 2024-01-30),
LLaVA-OneVision (arXiv 2408.03326, section 3); arithmetic equal to `transformers`' processors, floating
point included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

#: LLaVA-OneVision shrinks a grid only when it is at least this much too wide.
SHRINK_ABOVE = 1.1
#: Sides of all resolutions beyond which images that give a count are not looked for.
_MOST_PIXELS = 1_000_000


@dataclass(frozen=True, slots=True)
class AnyRes:
    """How a model cuts an image into tiles.

    Attributes:
        resolutions: (height, width) in pixels that an image may be fitted into.
        crop_size: side of one tile, and of the crop of the whole image, in pixels.
        grid: patches along one side of a tile.
        most_tiles: tiles' worth of tokens above which the grid is shrunk, or None.
    """

    resolutions: tuple[tuple[int, int], ...]
    crop_size: int
    grid: int
    most_tiles: int | None = None

    @property
    def largest(self) -> tuple[int, int]:
        """The resolution that gives the most tokens, the squarest where several do."""
        allowed = self.most_tiles or math.inf
        within = [size for size in self.resolutions if self.tiles(size) <= allowed]
        return max(
            within or self.resolutions,
            key=lambda size: (self.tiles(size), -abs(size[0] - size[1])),
        )

    def tiles(self, resolution: tuple[int, int]) -> int:
        """Tiles of a resolution.

        >>> AnyRes(((672, 672),), 336, 24).tiles((672, 1008))
        6
        """
        height, width = resolution
        return (height // self.crop_size) * (width // self.crop_size)

    def crops(self, height: int, width: int) -> int:
        """Crops through the tower for an image of so many pixels: its tiles and the image as a whole.

        >>> AnyRes(((336, 672), (672, 672)), 336, 24).crops(600, 600)
        5
        """
        return 1 + self.tiles(best_resolution(height, width, self.resolutions))

    def tokens(self, height: int, width: int) -> int:
        """Visual tokens of an image of so many pixels: the whole, the grid without padding, a newline a row.

        >>> next_7b = AnyRes(((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)), 336, 24)
        >>> next_7b.tokens(672, 672)  # 24 x 24, 48 x 48 and 48 newlines
        2928
        >>> next_7b.tokens(480, 640)  # 24 x 24, then 36 of 48 rows: 36 x 48 and 36 newlines
        2340
        """
        fitted = best_resolution(height, width, self.resolutions)
        rows, columns = unpadded(
            height,
            width,
            self.grid * (fitted[0] // self.crop_size),
            self.grid * (fitted[1] // self.crop_size),
        )
        if self.most_tiles is not None:
            rows, columns = shrunk(rows, columns, self.most_tiles * self.grid**2)
        return self.grid**2 + rows * columns + rows

    def sizes_giving(self, tokens: int) -> dict[int, tuple[int, int]]:
        """Return images, (height, width) in pixels, that give so many tokens, by their crops.

        >>> next_7b = AnyRes(((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)), 336, 24)
        >>> next_7b.sizes_giving(2340), next_7b.sizes_giving(64)
        ({5: (504, 672)}, {})
        """
        sizes = _sizes_by_tokens(self).get(tokens, ())
        found: dict[int, tuple[int, int]] = {}
        for size in sizes:
            if self.tokens(*size) == tokens:
                found.setdefault(self.crops(*size), size)
        return found


@lru_cache(maxsize=16)
def _sizes_by_tokens(anyres: AnyRes) -> dict[int, list[tuple[int, int]]]:
    """Images that fill one side of a resolution, by the tokens they would give if fitted into it."""
    found: dict[int, list[tuple[int, int]]] = {}
    if sum(map(sum, anyres.resolutions)) > _MOST_PIXELS:
        return found  # a config that no model has: a remark is not worth minutes
    pixels, most = anyres.crop_size // anyres.grid, (anyres.most_tiles or 0) * anyres.grid**2
    for resolution in anyres.resolutions:
        whole = rows, columns = tuple(side // anyres.crop_size * anyres.grid for side in resolution)
        grids = [(left, columns) for left in range(rows, 0, -2)]
        grids += [(rows, left) for left in range(columns - 2, 0, -2)]
        for grid in grids:
            height, width = grid if not most else shrunk(*grid, most)
            tokens = anyres.grid**2 + height * width + height
            # The grid in pixels, the filled side in full.
            size = tuple(
                full if left == all_ else left * pixels
                for left, all_, full in zip(grid, whole, resolution, strict=True)
            )
            found.setdefault(tokens, []).append((size[0], size[1]))
    return found


def best_resolution(
    height: int, width: int, resolutions: tuple[tuple[int, int], ...]
) -> tuple[int, int]:
    """Return the resolution that keeps most of an image's pixels, and of those the least wasteful.

    Resolutions are (height, width); the first of equals wins.

    >>> best_resolution(480, 640, ((336, 672), (672, 336), (672, 672)))
    (672, 672)
    """

    def merit(resolution: tuple[int, int]) -> tuple[int, int]:
        target_height, target_width = resolution
        scale = min(target_width / width, target_height / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - target_height * target_width

    return max(resolutions, key=merit)


def unpadded(height: int, width: int, rows: int, columns: int) -> tuple[int, int]:
    """Return the rows and columns of a grid of features that show an image and not its padding.

    >>> unpadded(480, 640, 48, 48)  # 4:3 fills three quarters of a square
    (36, 48)
    """
    # Both scales are rounded to 7 digits before truncation, as the models do: 35.99999999 is 36.
    if width / height > columns / rows:
        filled = int(round(height * (columns / width), 7))
        return rows - 2 * ((rows - filled) // 2), columns
    filled = int(round(width * (rows / height), 7))
    return rows, columns - 2 * ((columns - filled) // 2)


def shrunk(rows: int, columns: int, most: int) -> tuple[int, int]:
    """Return a grid scaled down bilinearly to about `most` features, if it has many more.

    >>> shrunk(162, 162, 9 * 27**2), shrunk(81, 81, 9 * 27**2)
    ((81, 81), (81, 81))
    """
    ratio = math.sqrt(rows * columns / most)
    if ratio <= SHRINK_ABOVE:
        return rows, columns
    return int(rows // ratio), int(columns // ratio)
