"""M3: average-pool the patch grid to a coarser one (nested, Matryoshka-like tokens).

Source: "Matryoshka Multimodal Models" (Cai et al., 2024).
Place: after the projector. Needs a model trained with it; on another one it is a plain pooling
baseline. Complexity: one addition per input value.

The published scales of a 24 x 24 grid are 576, 144, 36, 9 and 1 tokens; any factor that divides the
side works.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from costmodel.methods.keep import resolve_keep
from costmodel.methods.m3 import check_pooling
from token_reduction.apply.places import Host, reduce_crops
from token_reduction.tokens.checks import require_finite
from token_reduction.tokens.reduced import Reduced

if TYPE_CHECKING:
    from torch import Tensor


def m3(tokens: Tensor, keep: float) -> Reduced:
    """Average non-overlapping squares of patches.

    Formula: out[i, j] = mean of the f x f block of patches (i, j), f = side / sqrt(keep).

    Args:
        tokens: [..., n, d] in raster order of a square grid.
        keep: tokens out: a count, or a ratio rounded to nearest; its root must divide the side.

    Returns:
        Reduced with tokens [..., m, d], sources [..., n] and sizes (f * f each); nothing is
        kept as it was, so kept_indices is None.

    Raises:
        InvalidInputError: NaN or infinity, tokens that form no square, a count that no pooling
            of this grid gives (the message lists those it gives).

    >>> m3(torch.arange(4.0).reshape(4, 1), 1).tokens.item()  # (0 + 1 + 2 + 3) / 4
    1.5
    """
    require_finite("m3", tokens=tokens)
    n, d = tokens.shape[-2:]
    count = check_pooling(n, resolve_keep(keep, n))
    side, out = math.isqrt(n), math.isqrt(count)
    f = side // out
    blocks = tokens.reshape(*tokens.shape[:-2], out, f, out, f, d)
    pooled = blocks.mean(dim=(-4, -2)).reshape(*tokens.shape[:-2], count, d)
    line = torch.arange(side, device=tokens.device) // f
    sources = (line.unsqueeze(-1) * out + line).flatten().expand(*tokens.shape[:-2], n)
    sizes = torch.full_like(pooled[..., :1], f * f)
    return Reduced(tokens=pooled, sources=sources, sizes=sizes)


def plug(host: Host) -> None:
    """Pool the grid of every crop after the projector."""
    keep = host.method.settled_keep
    reduce_crops(host, lambda tokens, _: m3(tokens, keep), before_projector=False)
