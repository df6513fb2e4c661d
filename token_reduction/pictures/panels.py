"""What became of each patch of a picture, ready to be drawn.

One panel shows the whole crop (the overview of a tiled image), a second one the tiles together. A cell
is one patch, or one token of the tile mosaic where the model shrinks it; its box is in the pixels of
the original picture.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hardware_specs.errors import InvalidInputError
from token_reduction.apply.anatomy import dissect
from token_reduction.apply.geometry import (
    MOSAIC,
    Places,
    grid_of_tiles,
    pack_points,
    plain_points,
    tile_points,
)
from token_reduction.pictures.viewport import Viewport

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from token_reduction.apply.anatomy import Parts
    from token_reduction.apply.record import ReductionRecord


@dataclass(frozen=True, slots=True)
class Panel:
    """Cells of one view.

    Attributes:
        title: what the view is.
        boxes: [n, 4] left, top, right, bottom in pixels of the picture.
        kept: [n] whether the token is still there.
        heat: [n] a value for dropped cells, NaN for none; None when the method has none.
        group: [n] the output token each cell went into, -1 for none; None when not merged.
    """

    title: str
    boxes: np.ndarray
    kept: np.ndarray
    heat: np.ndarray | None = None
    group: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of each token of a unit, on the host."""

    kept: np.ndarray
    heat: np.ndarray | None
    group: np.ndarray | None


def build_panels(
    model: torch.nn.Module, record: ReductionRecord, viewports: Sequence[Viewport]
) -> list[Panel]:
    """Return the panels of the one image a record is about, from what each crop shows, overview first.

    Raises:
        InvalidInputError: a record of no image, of several, or of a video.
    """
    if record.items and record.items != ["image"]:
        raise InvalidInputError(f"an overlay shows one image; this run saw {record.items}")
    if len(record.tokens_before) != 1:
        raise InvalidInputError(
            f"an overlay shows one image; this run had {len(record.tokens_before)} of them"
        )
    parts = dissect(model)
    tower = parts.towers[0]
    tiled = parts.is_tiled and len(viewports) > 1
    first = record.stages[0] if record.stages else record
    if first.unit == "crop":
        fates = crop_fates(first, tower.patches)
        columns = grid_of_tiles(parts, record.image_sizes[0])[1] if tiled else 1
        points = tile_points(tower.side, columns, len(fates) - 1).reshape(-1, 3)
        places, fate = Places(points, None, tower.side), _joined(fates)
    else:
        places = _item_places(parts, record, tiled)
        columns = places.mosaic[1] if places.mosaic else 1
        fate = token_fate(first, len(places.points))
    if record.stages:
        fate = _what_is_left(fate, *record.stages)
    return _panels(places, fate, viewports, columns)


def even_panels(
    record: ReductionRecord, size: tuple[int, int], grid: tuple[int, int], frames: int = 1
) -> list[Panel]:
    """Return the panels of one image or clip whose tokens lie evenly over all of it.

    Args:
        record: of the one image or clip.
        size: (width, height) of the picture, or of a frame.
        grid: rows and columns of tokens.
        frames: of tokens.

    Raises:
        InvalidInputError: a record of several, or of other grids.
    """
    rows, columns = grid
    each = rows * columns
    if len(record.tokens_before) != 1 or not 0 <= record.tokens_before[0] - frames * each < 2:
        raise InvalidInputError(
            f"{frames} frames of {rows} x {columns} tokens are not what this run saw: "
            f"{record.tokens_before} tokens of {record.items}; give its grid, and one image or clip"
        )
    first = record.stages[0] if record.stages else record
    fate = token_fate(first, record.tokens_before[0])
    if record.stages:
        fate = _what_is_left(fate, *record.stages)
    y, x = (part.flatten() for part in np.mgrid[:rows, :columns])
    width, height = size[0] / columns, size[1] / rows
    boxes = np.stack((x * width, y * height, (x + 1) * width, (y + 1) * height), axis=1)
    parts = [slice(start, start + each) for start in range(0, frames * each, each)]
    return [
        Panel(
            "whole image" if frames == 1 else f"frame {number + 1}",
            boxes,
            fate.kept[part],
            None if fate.heat is None else fate.heat[part],
            None if fate.group is None else fate.group[part],
        )
        for number, part in enumerate(parts)
    ]


def _what_is_left(fate: Fate, first: ReductionRecord, last: ReductionRecord) -> Fate:
    """What became of tokens under two methods, the second of which saw what the first left.

    Raises:
        InvalidInputError: the first merged tokens, so that what the second dropped is no patch.
    """
    if fate.group is not None:
        raise InvalidInputError(
            f"{first.method.name} merges patches, and what a second method drops of them is no patch; "
            "draw each method by itself"
        )
    left = fate.kept.nonzero()[0] if first.kept_indices is None else first.kept_order
    later = _layers(last, int(first.tokens_after[0]))
    # What is not of a patch stands behind: tokens that gather others, a newline.
    later = Fate(later.kept[: len(left)], later.heat, None)
    kept, heat = np.zeros_like(fate.kept), np.full(len(fate.kept), np.nan)
    real = left >= 0
    kept[left[real]] = later.kept[real]
    if later.heat is not None:
        heat[left[real]] = later.heat[: len(left)][real]
    return Fate(kept, heat, None)


def crop_fates(record: ReductionRecord, patches: int) -> list[Fate]:
    """What became of the patches of each crop.

    Raises:
        InvalidInputError: the run was not traced, so a method inside the tower left no trail.
    """
    if record.kept_indices is None and record.sources is None:
        if record.method.place == "before-vision":
            raise InvalidInputError(
                f"{record.method.name} makes the whole picture smaller, so no patch of it is kept or "
                "dropped and there is nothing to draw"
            )
        raise InvalidInputError(
            f"{record.method.name} acts inside the vision tower; to draw what it did, enter "
            "reduce_tokens with trace=True"
        )
    crops = len(record.kept_indices or record.sources or [])
    return [_fate(record, crop, patches) for crop in range(crops)]


def token_fate(record: ReductionRecord, tokens: int) -> Fate:
    """What became of the tokens of the one image or sequence."""
    if len(record.kept_by_layer) < 2:
        return _fate(record, 0, tokens)
    return _layers(record, tokens)


def _layers(record: ReductionRecord, tokens: int) -> Fate:
    """What became of the tokens of one sequence, with the layer before which each one went."""
    # A method that cuts more than once: the layer each token was last seen before.
    heat = np.full(tokens, np.nan)
    present = np.ones(tokens, dtype=bool)
    for layer, units in sorted(record.kept_by_layer.items()):
        now = np.zeros(tokens, dtype=bool)
        now[units[0].cpu().numpy()] = True
        heat[present & ~now] = layer
        present = now
    return Fate(present, heat, None)


def _fate(record: ReductionRecord, unit: int, tokens: int) -> Fate:
    kept = np.zeros(tokens, dtype=bool)
    group = heat = None
    indices = record.kept_indices
    if indices is not None:
        kept[indices[unit].cpu().numpy()] = True
    elif record.sources is None:
        kept[:] = True
    if record.sources is not None:
        group = record.sources[unit].cpu().numpy()
        if indices is None:
            kept = group >= 0
        else:
            # Patches that are kept as they are say more than which token took the others.
            group = None
    weights = record.merge_weights
    if weights is not None and indices is not None:
        # Rows behind the kept tokens are extra tokens, which gather what no kept token took.
        heat = weights[unit][: len(indices[unit])].sum(dim=0).float().cpu().numpy()
        heat = np.where(kept | (heat <= 0), np.nan, heat)
    return Fate(kept, heat, group)


def _joined(fates: Sequence[Fate]) -> Fate:
    heats = [fate.heat for fate in fates if fate.heat is not None]
    groups = [fate.group for fate in fates if fate.group is not None]
    offset = 0
    for number, group in enumerate(groups):
        groups[number] = np.where(group >= 0, group + offset, -1)
        offset += int(group.max(initial=-1)) + 1
    return Fate(
        np.concatenate([fate.kept for fate in fates]),
        np.concatenate(heats) if heats else None,
        np.concatenate(groups) if groups else None,
    )


def _item_places(parts: Parts, record: ReductionRecord, tiled: bool) -> Places:
    tower = parts.towers[0]
    if not parts.is_tiled:
        return plain_points(tower, 1, has_class=record.tokens_before[0] > tower.patches)
    if not record.image_sizes:
        raise InvalidInputError("the record holds no image size; run the model on one image first")
    crops = 1
    if tiled:
        rows, columns = grid_of_tiles(parts, record.image_sizes[0])
        crops = rows * columns + 1
    config: Any = parts.model.config
    base: Any = parts.base
    names = inspect.signature(base.pack_image_features).parameters
    options = {
        name: getattr(config, name)
        for name in ("vision_feature_select_strategy", "vision_aspect_ratio")
        if name in names
    }
    return pack_points(parts, tower, [crops], record.image_sizes[:1], **options)[0]


def _panels(places: Places, fate: Fate, viewports: Sequence[Viewport], columns: int) -> list[Panel]:
    points = places.points.numpy()
    panels = []
    for view, title in ((0, "whole image"), (MOSAIC, "tiles")):
        # Shrinking a mosaic mixes coordinates, never views: the constant stays what it was.
        here = np.abs(points[:, 0] - view) < 0.25
        if not here.any():
            continue
        y, x = points[here, 1], points[here, 2]
        if view == 0:
            frame, tiles = viewports[0], 1.0
        else:
            frame, tiles = _mosaic_frame(viewports[1:], columns), float(columns)
        width = (frame.right - frame.left) / (places.side * tiles)
        rows = 1.0 if view == 0 else len(viewports[1:]) / columns
        height = (frame.bottom - frame.top) / (places.side * rows)
        half_x, half_y = _step(x) / 2, _step(y) / 2
        left, right = (frame.left + (x + side) * width for side in (-half_x, half_x))
        top, bottom = (frame.top + (y + side) * height for side in (-half_y, half_y))
        boxes = np.stack((left, top, right, bottom), axis=1)
        heat = None if fate.heat is None else fate.heat[here]
        group = None if fate.group is None else fate.group[here]
        panels.append(Panel(title, boxes, fate.kept[here], heat, group))
    return panels


def _mosaic_frame(viewports: Sequence[Viewport], columns: int) -> Viewport:
    """What all tiles show together; tiles of nothing but padding fit the grid of the others."""
    sizes = [(view.right - view.left, view.bottom - view.top) for view in viewports]
    width = float(np.median([size[0] for size in sizes]))
    height = float(np.median([size[1] for size in sizes]))
    lefts = [view.left - (number % columns) * width for number, view in enumerate(viewports)]
    tops = [view.top - (number // columns) * height for number, view in enumerate(viewports)]
    left, top = float(np.median(lefts)), float(np.median(tops))
    rows = len(viewports) // columns
    return Viewport(left, top, left + columns * width, top + rows * height)


def _step(values: np.ndarray) -> float:
    """Distance of neighbouring tokens, in patches: 1 unless the mosaic was shrunk."""
    distinct = np.unique(np.round(values, 3))
    return float(np.median(np.diff(distinct))) if len(distinct) > 1 else 1.0
