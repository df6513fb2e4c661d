"""Methods that take all tokens of one image or video after the projector, tiles and newlines joined."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from costmodel.methods.keep import resolve_keep
from hardware_specs.errors import UnsupportedError
from token_reduction.apply.crop_attention import ClassAttention
from token_reduction.apply.geometry import MOSAIC, grid_of_tiles, pack_points
from token_reduction.divprune import divprune
from token_reduction.hired import hired
from token_reduction.tokens.reduced import Reduced
from token_reduction.tokens.selection import top_indices

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from costmodel.methods import Method
    from token_reduction.apply.anatomy import Parts
    from token_reduction.apply.patching import Patches

ITEM_METHODS = ("divprune", "hired")


class Item(NamedTuple):
    """One image or video of a forward.

    Attributes:
        tokens: [n, d] as the language model would see them.
        modality: "image" or "video".
        number: which one of its modality, from 0.
        size: (height, width) of a tiled image, or None.
    """

    tokens: Tensor
    modality: str
    number: int
    size: tuple[int, int] | None


def item_function(parts: Parts, method: Method, patches: Patches) -> Callable[[Item], Reduced]:
    """Return what reduces one image or video, with its probes attached.

    Args:
        parts: the model.
        method: one of `ITEM_METHODS`.
        patches: takes the hooks.

    Raises:
        UnsupportedError: the tower has no class token and the method needs one.
    """
    if method.name == "hired":
        return TileBudgets(parts, method, patches)
    keep: Any = method.keep
    dtype = compute_dtype(method)
    return lambda item: divprune(item.tokens, keep, compute_dtype=dtype)


def compute_dtype(method: Method) -> torch.dtype | None:
    """Return the precision of DivPrune's distances; None is the tokens' own."""
    name = method.options["compute_dtype"]
    if name is None:
        return None
    found: torch.dtype = getattr(torch, str(name))
    return found


class TileBudgets:
    """HiRED: a budget for each tile, spent by class attention; newline tokens all stay.

    An image that is not tiled is one tile and gets the whole budget. Own matrix products per crop:
    the class token's row in two layers, 4 (n+1) w FLOPs.

    Args:
        parts: the model.
        method: what is asked for.
        patches: takes the hooks.

    Raises:
        UnsupportedError: a tower without class token, or with other layers.
    """

    def __init__(self, parts: Parts, method: Method, patches: Patches) -> None:
        self._parts, self._method = parts, method
        # The program reads layers 0 and 22 of 24: the first, and the one whose output is taken.
        self._early = ClassAttention(parts, method.name, 0)
        self._late = ClassAttention(parts, method.name, -2)
        self._early.attach(parts, patches)
        self._late.attach(parts, patches)
        self._rows: tuple[Tensor, Tensor] | None = None
        self._first = 0

    def __call__(self, item: Item) -> Reduced:
        """Reduce one image; those of a forward come in order."""
        if item.modality != "image":
            raise UnsupportedError("hired spends a budget on the tiles of an image, not on videos")
        if item.number == 0:
            (early, _), (late, _) = self._early.take(), self._late.take()
            self._rows, self._first = (early[..., 1:], late[..., 1:]), 0
        assert self._rows is not None  # noqa: S101  (images come in order)
        if item.size is None:
            return self._whole(item.tokens)
        return self._tiled(item.tokens, item.size)

    def _crops(self, count: int) -> tuple[Tensor, Tensor]:
        assert self._rows is not None  # noqa: S101  (the caller looked)
        block = slice(self._first, self._first + count)
        self._first += count
        return self._rows[0][block], self._rows[1][block]

    def _whole(self, tokens: Tensor) -> Reduced:
        _, late = self._crops(1)
        scores = late[0].sum(dim=0)
        keep: Any = self._method.keep
        count = resolve_keep(keep, len(tokens), rounding="down")
        kept = top_indices(scores, count).sort().values
        return Reduced(tokens.index_select(0, kept), kept_indices=kept, scores=scores)

    def _tiled(self, tokens: Tensor, size: tuple[int, int]) -> Reduced:
        parts, options = self._parts, self._method.options
        grid = grid_of_tiles(parts, size)
        tiles = grid[0] * grid[1] + 1
        early, late = self._crops(tiles)
        keep: Any = self._method.keep
        alpha: Any = options["alpha"]
        chosen = hired(early, late, keep, grid=grid, alpha=alpha, variant=self._method.variant)
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
