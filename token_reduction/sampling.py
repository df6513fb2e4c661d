"""Sequential, spatial and random sampling: baselines that rank nothing.

Source: "LLaVA-PruMerge" (Shang et al., 2024), Table 4, which has no released code.
Place: any point where the visual tokens are a list of patches; PruMerge compares them before the
projector. Complexity: one copy of the kept tokens.

Sequential keeps the first n of the flattened tokens. Spatial keeps an evenly spaced grid of r rows and c
columns; the paper has 6x6, 5x8, 8x5, 5x7, 7x5 and 4x4 but does not give the positions. The cell
centres used here, row_i = floor((i + 0.5) * height / r) and the same for columns, are this project's
own choice. variant="strided" of `spatial` is the one-dimensional sampling in HiRED's program:
arange(0, N-1, N // n), which may return a few tokens more than n.

Random keeps tokens of whole images or videos after the projector, in spatial order, the same places for the
same seed and number of tokens.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from costmodel.methods.keep import resolve_keep
from costmodel.methods.sampling import (
    GRID,
    RANDOM,
    SEED,
    SEQUENTIAL,
    squarest_grid,
    strided_indices,
)
from hardware_specs.errors import InvalidInputError
from token_reduction.apply.places import Host, reduce_crops, reduce_items
from token_reduction.tokens.checks import require_finite
from token_reduction.tokens.reduced import Reduced
from token_reduction.tokens.selection import check_variant

if TYPE_CHECKING:
    from torch import Tensor


def sequential(tokens: Tensor, keep: float) -> Reduced:
    """Keep the first tokens in raster order.

    Args:
        tokens: [..., n, d].
        keep: a count, or a ratio rounded to nearest.

    Raises:
        InvalidInputError: NaN or infinity, a keep out of range.

    >>> sequential(torch.tensor([[1.0], [2.0], [3.0]]), 2).tokens.flatten().tolist()
    [1.0, 2.0]
    """
    require_finite("sequential", tokens=tokens)
    count = resolve_keep(keep, tokens.shape[-2])
    return _take(tokens, torch.arange(count, device=tokens.device))


def spatial(
    tokens: Tensor,
    keep: float | None = None,
    *,
    grid: tuple[int, int] | None = None,
    shape: tuple[int, int] | None = None,
    variant: str = "program",
) -> Reduced:
    """Keep an evenly spaced grid of tokens.

    Formula: row_i = floor((i + 0.5) * height / r), column_j = floor((j + 0.5) * width / c), in
    raster order.

    Args:
        tokens: [..., n, d] in raster order.
        keep: a count, or a ratio rounded to nearest; its grid is the squarest (r, c) with
            r * c = keep and r <= c.
        grid: (r, c) itself, instead of keep.
        shape: (height, width) of the patches; None for a square.
        variant: "program" for the grid, "strided" for HiRED's every N // n-th token.

    Returns:
        Reduced, kept_indices ascending.

    Raises:
        InvalidInputError: NaN or infinity, no grid of that many tokens, tokens that form no
            square and no shape given, both or neither of keep and grid.

    >>> spatial(torch.zeros(16, 1), 4).kept_indices.tolist()
    [5, 7, 13, 15]
    """
    check_variant("spatial", variant, ("program", "paper", "strided"))
    require_finite("spatial", tokens=tokens)
    n = tokens.shape[-2]
    if (keep is None) == (grid is None):
        raise InvalidInputError("spatial takes keep or grid, one of them")
    if variant == "strided":
        if keep is None:
            raise InvalidInputError("spatial's strided variant takes keep, it has no grid")
        indices = strided_indices(n, resolve_keep(keep, n))
    else:
        height, width = patch_grid(n) if shape is None else shape
        if height * width != n:
            raise InvalidInputError(f"a grid of {height} x {width} patches has not {n} tokens")
        if grid is None:
            assert keep is not None  # noqa: S101  # one of the two is given, checked above
            grid = squarest_grid(resolve_keep(keep, n), height, width)
        indices = grid_indices(grid, (height, width))
    # A copy from the host that waits for nothing.
    return _take(tokens, torch.tensor(indices).to(tokens.device, non_blocking=True))


def random(tokens: Tensor, keep: float, *, seed: int = 0) -> Reduced:
    """Keep tokens at random, each as likely as any other.

    Args:
        tokens: [..., n, d].
        keep: a count, or a ratio rounded to nearest.
        seed: of the picks, which are drawn on the host; the same for every list of a batch.

    Raises:
        InvalidInputError: NaN or infinity, a keep out of range.

    >>> first, again = (random(torch.zeros(100, 1), 3).kept_indices for _ in range(2))
    >>> bool((first == again).all())
    True
    """
    require_finite("random", tokens=tokens)
    n = tokens.shape[-2]
    drawn = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    kept = drawn[: resolve_keep(keep, n)].sort().values
    return _take(tokens, kept.to(tokens.device, non_blocking=True))


def patch_grid(n: int) -> tuple[int, int]:
    """Height and width of a square image of `n` patches.

    Raises:
        InvalidInputError: `n` is not a square.

    >>> patch_grid(576)
    (24, 24)
    """
    side = math.isqrt(n)
    if side * side != n:
        raise InvalidInputError(
            f"{n} tokens form no square; give shape=(height, width), or one crop at a time"
        )
    return side, side


def grid_indices(grid: tuple[int, int], shape: tuple[int, int]) -> list[int]:
    """Raster indices of the cell centres of a grid laid over height x width patches.

    >>> grid_indices((2, 2), (4, 4))  # rows and columns 1 and 3
    [5, 7, 13, 15]
    """
    (rows, columns), (height, width) = grid, shape
    if not (1 <= rows <= height and 1 <= columns <= width):
        raise InvalidInputError(f"a grid of {rows} x {columns} does not fit {height} x {width}")
    return [
        (2 * i + 1) * height // (2 * rows) * width + (2 * j + 1) * width // (2 * columns)
        for i in range(rows)
        for j in range(columns)
    ]


def _take(tokens: Tensor, indices: Tensor) -> Reduced:
    kept = indices.expand(*tokens.shape[:-2], indices.shape[0])
    return Reduced(tokens=tokens.index_select(-2, indices), kept_indices=kept, selection_order=kept)


def plug(host: Host) -> None:
    """Take patches of every crop before the projector: the first, or a grid; or any behind it."""
    method, keep = host.method, host.method.settled_keep
    if method.info is RANDOM:
        seed = SEED.of(method)
        reduce_items(host, lambda item: random(item.tokens, keep, seed=seed + item.number))
        return
    if method.info is SEQUENTIAL:
        reduce_crops(host, lambda patches, _: sequential(patches, keep), before_projector=True)
        return
    cells = GRID.of(method)
    asked = keep if cells is None else None
    reduce_crops(
        host,
        lambda patches, _: spatial(patches, asked, grid=cells, variant=method.variant),
        before_projector=True,
    )
