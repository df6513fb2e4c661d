"""Where on the picture a visual token comes from.

A token's place is a view and a point in it, in patches from the top left. View 0 is the crop itself (or
the overview of a tiled image), 1, 2, ... are further frames of a video, MOSAIC is the picture that the
tiles make together, and NOWHERE are newline and class tokens. For tiled models the places go through
the model's own packing (unpadding, newline tokens, shrinking), so they follow it by construction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from token_reduction.apply.anatomy import Parts, Tower

MOSAIC = -1
NOWHERE = -2


@dataclass(frozen=True, slots=True)
class Places:
    """Places of the visual tokens of one item.

    Attributes:
        points: [n, 3] view, y, x of each token's centre.
        mosaic: (rows, columns) of tiles, or None when there is a single crop.
        side: patches along one side of a crop.
    """

    points: Tensor
    mosaic: tuple[int, int] | None
    side: int


def crop_points(side: int, view: int = 0) -> Tensor:
    """Places of the patches of one crop, [side * side, 3], in raster order.

    >>> crop_points(2).tolist()[3]
    [0.0, 1.5, 1.5]
    """
    centres = torch.arange(side, dtype=torch.float32) + 0.5
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack((torch.full_like(y, float(view)), y, x), dim=-1).view(-1, 3)


def tile_points(side: int, columns: int, tiles: int) -> Tensor:
    """Places of the patches of an overview and its tiles, [1 + tiles, side * side, 3]."""
    overview = crop_points(side)
    views = [overview]
    for tile in range(tiles):
        row, column = divmod(tile, columns)
        offset = torch.tensor([float(MOSAIC), float(row * side), float(column * side)])
        views.append(overview + offset)
    return torch.stack(views)


def grid_of_tiles(parts: Parts, image_size: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of tiles that a tiled model cuts an image of (height, width) pixels into."""
    from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape

    config: Any = parts.model.config
    rows, columns = get_anyres_image_grid_shape(
        tuple(image_size), config.image_grid_pinpoints, config.vision_config.image_size
    )
    return int(rows), int(columns)


def pack_points(
    parts: Parts, tower: Tower, crops: Sequence[int], sizes: Sequence[Sequence[int]], **options: Any
) -> list[Places]:
    """Places of the tokens of tiled images, in the order the language model sees them.

    Args:
        parts: a tiled model.
        tower: its tower.
        crops: of each image, overview included.
        sizes: (height, width) of each image.
        options: further arguments of the model's `pack_image_features`.
    """
    grids = [grid_of_tiles(parts, size) for size in sizes]
    points = [
        tile_points(tower.side, grid[1], count - 1)
        for grid, count in zip(grids, crops, strict=True)
    ]
    newline = torch.full((3,), float(NOWHERE))
    cls: Any = type(parts.base)
    options["image_newline"] = newline
    packed, _ = cls.pack_image_features(
        parts.base, points, torch.tensor([list(size) for size in sizes]), **options
    )
    return [
        Places(item, grid if count > 1 else None, tower.side)
        for item, grid, count in zip(packed, grids, crops, strict=True)
    ]


def plain_points(tower: Tower, crops: int, *, has_class: bool) -> Places:
    """Places of the tokens of crops or frames that follow each other, their class tokens first if any."""
    views = []
    for view in range(crops):
        if has_class:
            views.append(torch.full((1, 3), float(NOWHERE)))
        views.append(crop_points(tower.side, view))
    return Places(torch.cat(views), None, tower.side)
