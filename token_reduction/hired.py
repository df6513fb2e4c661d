"""HiRED: a budget for each tile of a high-resolution image, spent by class attention.

Source: "HiRED: Attention-Guided Token Dropping for Efficient Inference of High-Resolution
Vision-Language Models" (Arif et al., AAAI 2025) and its program hasanar1f/HiRED.
Place: after the projector, per tile, before tiles are joined; class attention of CLIP layers 0 and
22. Tile 0 is the whole image. The language model sees a plain shorter sequence.

Complexity: h*n additions and a sort per tile. How many tokens each tile keeps depends on the data:
one read-back of as many integers as there are tiles.

The paper gives a tile a share of the budget by the attention that falls on its part of the whole
image. The program counts the (1 - alpha) * n patches with the largest attention, and counts them in
runs of n / tiles patches in raster order, which are bands of rows and not the tiles' rectangles;
variant="paper" sums the attention over the rectangles. Budgets are truncated, so a few tokens of
the budget may go unused.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from costmodel.methods.hired import ALPHA, RATIO
from costmodel.methods.keep import check_keep, resolve_keep
from hardware_specs.errors import InvalidInputError, UnsupportedError
from token_reduction.apply.class_attention import ClassAttention
from token_reduction.apply.geometry import MOSAIC, grid_of_tiles, pack_points
from token_reduction.apply.places import Host, reduce_items
from token_reduction.sampling import patch_grid
from token_reduction.tokens.checks import check_mode, misfit, nonfinite_flag, reject
from token_reduction.tokens.reduced import Reduced, Selection
from token_reduction.tokens.selection import check_variant, top_indices

if TYPE_CHECKING:
    from torch import Tensor

    from token_reduction.apply.crops import Item


def hired(
    early_attention: Tensor,
    late_attention: Tensor,
    keep: float = RATIO,
    *,
    grid: tuple[int, int],
    alpha: float = ALPHA.default,
    variant: str = "program",
) -> list[Selection]:
    """Choose the tokens of every tile of one image.

    Formula: budget B = int(tiles * n * keep); the whole image gets min(int(B alpha), n); sub-image
    i gets min(int(share_i * rest), n), its share being the count of the whole image's
    int(n (1 - alpha)) most attended patches (layer 0) that lie in its part. Each tile keeps its
    most attended patches (layer 22), heads summed.

    Args:
        early_attention: [tiles, h, n] class token's row of layer 0, without its own column.
        late_attention: [tiles, h, n] the same of layer 22.
        keep: share of all tokens (float), or their number (int).
        grid: (rows, columns) of the sub-images; tiles = rows * columns + 1.
        alpha: share of the budget for the whole image.
        variant: "program" or "paper".

    Returns:
        One Selection per tile: kept_indices = image_indices ascending, scores [n].

    Raises:
        InvalidInputError: shapes or grid that do not fit, NaN or infinity, a keep or alpha out of
            range.

    >>> early = torch.tensor([[[4.0, 3.0, 2.0, 1.0]]]).expand(3, 1, 4)
    >>> [len(tile.kept_indices) for tile in hired(early, early, 0.5, grid=(1, 2))]
    [3, 3, 0]
    """
    check_variant("hired", variant)
    tiles, _, n = early_attention.shape
    rows, columns = grid
    if early_attention.shape != late_attention.shape or tiles != rows * columns + 1:
        takes = f"two rows of attention [tiles, h, n] for {rows} x {columns} + 1 tiles"
        raise misfit("hired", takes, early_attention, late_attention)
    if not 0.0 <= alpha <= 1.0:
        raise InvalidInputError(f"alpha={alpha} is the whole image's share and must be in [0, 1]")
    checked = check_keep(keep)
    budget = checked if isinstance(checked, int) else int(tiles * n * checked)
    if budget > tiles * n:
        raise InvalidInputError(
            f"keep={budget} asks for more tokens than the {tiles * n} there are"
        )
    early, late = early_attention.sum(dim=1), late_attention.sum(dim=1)
    whole = min(int(budget * alpha), n)
    rest = min(budget - whole, (tiles - 1) * n)
    weights = _visual_content(early[0], grid, alpha, variant).double()
    flag = nonfinite_flag(early_attention, late_attention).reshape(1).double()
    *content, nonfinite = torch.cat((weights, flag)).tolist()
    if nonfinite and check_mode(late.device) != "off":
        raise reject("hired", "attention")
    # Single precision, as the program computes the shares it truncates.
    shares = torch.tensor(content, dtype=torch.float32)
    shares = shares / shares.sum().clamp_min(torch.finfo(torch.float32).tiny)
    counts = [whole, *(min(int(value), n) for value in (shares * rest).tolist())]
    chosen = []
    for tile, count in enumerate(counts):
        kept = top_indices(late[tile], count).sort().values
        chosen.append(Selection(kept_indices=kept, image_indices=kept, scores=late[tile]))
    return chosen


def _visual_content(attention: Tensor, grid: tuple[int, int], alpha: float, variant: str) -> Tensor:
    """Weight of each sub-image in the whole image's attention [n]."""
    n = attention.shape[0]
    rows, columns = grid
    if variant == "paper":
        height, width = patch_grid(n)
        line = torch.arange(height, device=attention.device) * rows // height
        column = torch.arange(width, device=attention.device) * columns // width
        part = (line.unsqueeze(-1) * columns + column).flatten()
    else:
        if n % (rows * columns):
            raise InvalidInputError(
                f"hired splits the {n} patches of the whole image into {rows * columns} equal "
                "runs, which they do not divide into; use variant='paper'"
            )
        part = torch.arange(n, device=attention.device) // (n // (rows * columns))
        marked = torch.zeros_like(attention)
        marked[top_indices(attention, math.floor(n * (1 - alpha)))] = 1
        attention = marked
    return attention.new_zeros(rows * columns).index_add(0, part, attention)


def plug(host: Host) -> None:
    """Spend a budget on the tiles of each image after the projector."""
    reduce_items(host, TileBudgets(host))


class TileBudgets:
    """HiRED: a budget for each tile, spent by class attention; newline tokens all stay.

    An image that is not tiled is one tile and gets the whole budget. Own matrix products per crop:
    the class token's row in two layers, 4 (n+1) w FLOPs.

    Raises:
        UnsupportedError: a tower without class token, or with other layers.
    """

    #: Attention to the patches of all crops of a forward, and the crops already spent on.
    _rows: tuple[Tensor, Tensor]
    _first: int

    def __init__(self, host: Host) -> None:
        self._parts, self._method = host.parts, host.method
        # The program reads layers 0 and 22 of 24: the first, and the one whose output is taken.
        self._early, self._late = ClassAttention(host, 0), ClassAttention(host)

    def __call__(self, item: Item) -> Reduced:
        """Reduce one image; those of a forward come in order."""
        if item.modality != "image":
            raise UnsupportedError("hired spends a budget on the tiles of an image, not on videos")
        if item.number == 0:
            (early, _), (late, _) = self._early.take(), self._late.take()
            self._rows, self._first = (early[..., 1:], late[..., 1:]), 0
        if item.size is None:
            return self._whole(item.tokens)
        return self._tiled(item.tokens, item.size)

    def _crops(self, count: int) -> tuple[Tensor, Tensor]:
        block = slice(self._first, self._first + count)
        self._first += count
        return self._rows[0][block], self._rows[1][block]

    def _whole(self, tokens: Tensor) -> Reduced:
        _, late = self._crops(1)
        scores = late[0].sum(dim=0)
        count = resolve_keep(self._method.settled_keep, len(scores), rounding="down")
        # A class token that goes along stays in front.
        beside = len(tokens) - len(scores)
        kept = torch.cat((
            torch.arange(beside, device=scores.device),
            top_indices(scores, count).sort().values + beside,
        ))  # fmt: skip
        scores = torch.nn.functional.pad(scores, (beside, 0))
        return Reduced(tokens.index_select(0, kept), kept_indices=kept, scores=scores)

    def _tiled(self, tokens: Tensor, size: tuple[int, int]) -> Reduced:
        parts, method = self._parts, self._method
        grid = grid_of_tiles(parts, size)
        tiles = grid[0] * grid[1] + 1
        early, late = self._crops(tiles)
        chosen = hired(
            early,
            late,
            method.settled_keep,
            grid=grid,
            alpha=ALPHA.of(method),
            variant=method.variant,
        )
        tower = parts.towers[0]
        strategy: Any = parts.model.config
        (places,) = pack_points(
            parts, tower, [tiles], [size],
            vision_feature_select_strategy=strategy.vision_feature_select_strategy,
        )  # fmt: skip
        points = places.points.numpy()
        stays = np.zeros((tiles, tower.patches), dtype=bool)
        for tile, selection in enumerate(chosen):
            stays[tile, selection.kept_indices.cpu().numpy()] = True
        y, x = points[:, 1].astype(int), points[:, 2].astype(int)
        owner = np.where(
            points[:, 0] == MOSAIC, 1 + (y // tower.side) * grid[1] + x // tower.side, 0
        )
        patch = (y % tower.side) * tower.side + x % tower.side
        # Newline tokens have no place, and no patch of their own: all of them stay.
        placed = points[:, 0] >= MOSAIC
        kept = torch.from_numpy(np.flatnonzero(~placed | stays[owner * placed, patch * placed]))
        kept = kept.to(tokens.device)
        return Reduced(tokens.index_select(0, kept), kept_indices=kept)
