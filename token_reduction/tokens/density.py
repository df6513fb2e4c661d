"""Density peaks: how far tokens in crowds are from the next one in a denser crowd."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def peak_scores(tokens: Tensor, neighbours: int) -> Tensor:
    """Score tokens [..., p, d] as centres of clusters (DPC-kNN), [..., p], in float32 at least.

    Formula: dist = |x_i - x_j| / sqrt(d); density = exp(-mean of the squared distances to the `neighbours`
    nearest, itself among them); score = density x distance to the nearest denser token, or for the densest
    the largest distance there is.

    Distances are those of a product, 2 p^2 d FLOPs, so that no [p, p, d] is made.

    >>> x = torch.tensor([[0.0], [0.1], [0.3], [8.0], [8.2], [9.0]])  # the densest of either crowd
    >>> peak_scores(x, 3).topk(2).indices.tolist()
    [1, 4]
    """
    return scores_of(distances(tokens), neighbours)


def distances(tokens: Tensor) -> Tensor:
    """Return |x_i - x_j| / sqrt(d) of tokens [..., p, d], [..., p, p], in float32 at least.

    >>> distances(torch.tensor([[0.0, 0.0], [1.0, 1.0]])).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    p, d = tokens.shape[-2:]
    wide = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
    square = wide.square().sum(dim=-1)
    both = square.unsqueeze(-1) + square.unsqueeze(-2)
    apart = (both - 2 * (wide @ wide.transpose(-1, -2))).clamp_min(0) / d
    # What rounding leaves between a token and itself would be a distance of its own.
    return (apart * ~torch.eye(p, dtype=torch.bool, device=tokens.device)).sqrt()


def scores_of(distance: Tensor, neighbours: int, noise: Tensor | None = None) -> Tensor:
    """Score tokens by the distances between them, [..., p, p], with `noise` [..., p] on the densities."""
    nearest = distance.topk(min(neighbours, distance.shape[-1]), dim=-1, largest=False).values
    density = (-nearest.square().mean(dim=-1)).exp()
    if noise is not None:
        density = density + noise
    denser = density.unsqueeze(-2) > density.unsqueeze(-1)
    farthest = distance.amax(dim=(-2, -1), keepdim=True)
    gap = torch.where(denser, distance, farthest).amin(dim=-1)
    return gap * density
