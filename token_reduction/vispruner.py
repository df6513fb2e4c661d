"""VisPruner: half by class attention, the rest by removing what is similar.

Source: "Beyond Text-Visual Attention: Exploiting Visual Cues for Effective Token Pruning in VLMs"
(Zhang et al., 2025) and its program Theia-4869/VisPruner.
Place: after the projector. CLIP features and the attention of layer -2 decide; the language model sees a
plain shorter sequence in spatial order.

Complexity, n tokens, k kept, c width: (n-k)/8 dependent rounds, each (n'/2)^2*c for the similarity
of what is left, about n^3*c/96 in all. No length depends on the data. Program and paper agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from costmodel.methods.keep import resolve_keep
from costmodel.methods.vispruner import IMPORTANT, REMOVED_PER_ROUND
from token_reduction.apply.class_attention import ClassAttention, watch_features
from token_reduction.apply.places import Host, reduce_crops
from token_reduction.tokens.checks import require_finite
from token_reduction.tokens.selection import (
    check_row,
    picked_tokens,
    take_tokens,
    top_indices,
    unit_rows,
)

if TYPE_CHECKING:
    from torch import Tensor

    from token_reduction.apply.anatomy import Tower
    from token_reduction.tokens.reduced import Reduced


def vispruner(
    tokens: Tensor,
    cls_attention: Tensor,
    keep: float,
    *,
    important: float = IMPORTANT.default,
    features: Tensor | None = None,
) -> Reduced:
    """Keep important tokens and, of the others, diverse ones.

    Formula: int(important * k) tokens by mean-head class attention. The others, in descending
    attention, are split into even and odd places; the 8 even ones most similar (cosine) to an odd
    one go; what stays is [even, in falling similarity, odd]; and again until k are left.

    Args:
        tokens: [..., n, d] what is kept from; also the features, when none are given.
        cls_attention: [..., h, n] the class token's row without its own column.
        keep: a count, or a ratio rounded to nearest.
        important: share of them chosen by attention.
        features: [..., n, c] CLIP features the similarity is taken of; None for `tokens`.

    Returns:
        Reduced in spatial order; selection_order has the important ones first.

    Raises:
        InvalidInputError: lengths that differ, NaN or infinity, a keep out of range.

    >>> row = torch.tensor([[0.4, 0.3, 0.2, 0.1]])
    >>> x = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 1.1], [0.0, 1.0]])
    >>> vispruner(x, row, 2).kept_indices.tolist()  # 0 by attention; 1, 2, 3 compete
    [0, 2]
    """
    features = tokens if features is None else features
    check_row("vispruner", tokens, cls_attention)
    check_row("vispruner", features, cls_attention)
    attention = cls_attention.mean(dim=-2)
    norms = features.norm(dim=-1, keepdim=True)
    require_finite("vispruner", cls_attention=attention, features=norms)
    n = tokens.shape[-2]
    count = resolve_keep(keep, n)
    with torch.no_grad():
        unit = unit_rows(features, norms)
        order = top_indices(attention, n)
        first = int(count * important)
        diverse = _diverse(unit, order[..., first:], count - first)
    picked = torch.cat((order[..., :first], diverse), dim=-1)
    return picked_tokens(tokens, picked, cls_attention=attention)


def _diverse(unit: Tensor, candidates: Tensor, count: int) -> Tensor:
    """Thin out candidates [..., r] to `count` by dropping even ones with a similar odd one."""
    if count == 0:
        return candidates[..., :0]
    while (left := candidates.shape[-1]) > count:
        even, odd = candidates[..., ::2], candidates[..., 1::2]
        removed = min(REMOVED_PER_ROUND, left - count, even.shape[-1])
        similarity = take_tokens(unit, even) @ take_tokens(unit, odd).transpose(-1, -2)
        closest = similarity.amax(dim=-1).argsort(dim=-1, descending=True)
        even = even.gather(-1, closest[..., removed:])
        candidates = torch.cat((even, odd), dim=-1)
    return candidates


def plug(host: Host) -> None:
    """Prune the projected patches of every crop, by the features before the projector."""
    attention = ClassAttention(host)
    features = watch_features(host)
    keep, important = host.method.settled_keep, IMPORTANT.of(host.method)

    def pruned(tokens: Tensor, tower: Tower) -> Reduced:
        row = attention.of_patches(tokens, tower)
        seen = features.pop()[:, -tower.patches :]
        return vispruner(tokens, row, keep, important=important, features=seen)

    reduce_crops(host, pruned, before_projector=False)
