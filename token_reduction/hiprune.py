"""HiPrune: anchors with their neighbours, and registers.

Source: "HiPrune: Training-Free Visual Token Pruning via Hierarchical Attention in Vision-Language Models"
(Liu et al., 2025, arXiv 2508.00553) and its program Danielement321/HiPrune.
Place: after the projector, each crop by itself, in spatial order. Needs the attention of two vision
layers, as a mean over heads and over all queries, recomputed from queries and keys: the tower keeps its
own kernel, where the program runs those layers with their scores written out.

Complexity, n tokens, c width of the tower: n^2*c for each of the two maps, sorts of n. No length depends on
the data. The layer of the anchors is the tower's 9th of 24, counted from 1. Neighbours beyond the first or
last patch are clamped to it, and a neighbour to the left of a row's first patch is the last of the row
above, as in the program, whose 24 patches a row are the tower's own here.

Behind the merger of a tower of native resolution (Qwen's), each image's merged tokens by themselves: the
layer of the anchors is the middle one, 16 of 32, and a patch of a layer of windows is looked at from its
window. A clip's pairs of frames follow each other as rows do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from costmodel.methods.hiprune import ALPHA, COUNT, SHALLOW, anchor_count, shallow_layer
from costmodel.methods.keep import resolve_keep
from token_reduction.apply.class_attention import MeanAttention, require_patches
from token_reduction.apply.places import Host, reduce_crops, reduce_items
from token_reduction.apply.received_attention import ReceivedAttention
from token_reduction.tokens.checks import misfit, require_finite
from token_reduction.tokens.selection import picked_tokens, top_indices

if TYPE_CHECKING:
    from torch import Tensor

    from token_reduction.apply.anatomy import Tower
    from token_reduction.apply.crops import Item
    from token_reduction.tokens.reduced import Reduced


def hiprune(
    tokens: Tensor,
    shallow: Tensor,
    deep: Tensor,
    keep: float = COUNT,
    *,
    side: int,
    alpha: float = ALPHA.default,
) -> Reduced:
    """Keep anchors, their neighbours, and what a deep layer looks at.

    Formula: the round(K alpha / 5) patches with the largest `shallow`, and those at -1, +1, -side and +side
    of them, clamped to the image; then those with the largest `deep` until there are K.

    Args:
        tokens: [..., n, d] in raster order.
        shallow: [..., n] attention that each patch receives in a middle layer.
        deep: [..., n] the same in a deep layer.
        keep: K: a count, or a ratio rounded to nearest.
        side: patches of a row.
        alpha: share of K for anchors and their neighbours.

    Returns:
        Reduced in spatial order; scores are `deep`.

    Raises:
        InvalidInputError: lengths that differ, NaN or infinity, a keep out of range.

    >>> x, one = torch.arange(9.0).unsqueeze(-1), torch.eye(9)
    >>> hiprune(x, one[8], one[0], 4, side=3, alpha=1.0).kept_indices.tolist()  # the corner, 7, 5; 0
    [0, 5, 7, 8]
    """
    if shallow.shape != tokens.shape[:-1] or deep.shape != tokens.shape[:-1]:
        takes = "tokens [..., n, d] and attention received [..., n] in two layers"
        raise misfit("hiprune", takes, tokens, shallow, deep)
    require_finite("hiprune", shallow=shallow, deep=deep)
    n = tokens.shape[-2]
    count = resolve_keep(keep, n)
    anchors = top_indices(shallow, anchor_count(count, alpha)).unsqueeze(-1)
    steps = torch.tensor([0, -1, 1, -side, side]).to(tokens.device, non_blocking=True)
    group = (anchors + steps).clamp(0, n - 1).flatten(-2)
    # What belongs to an anchor comes before everything; the rest by its score.
    first = torch.zeros_like(deep).scatter(-1, group, 1.0)
    best = top_indices(deep, n)
    order = best.gather(-1, first.gather(-1, best).argsort(dim=-1, descending=True, stable=True))
    return picked_tokens(tokens, order[..., :count], scores=deep)


def plug(host: Host) -> None:
    """Prune the projected patches of every crop, or the tokens of every image, by what two layers look at."""
    method, native = host.method, host.parts.three_axes
    keep, alpha = method.settled_keep, ALPHA.of(method)
    if not native:
        host.parts.require_vision_layers(method.name)
        host.parts.require_class_token(method.name)
    shallow = shallow_layer(SHALLOW.of(method), len(host.parts.towers[0].layers), native=native)
    if native:
        maps = [ReceivedAttention(host, depth) for depth in (shallow, -2)]

        def chosen(item: Item) -> Reduced:
            early, late = (each.of(item.number)[0] for each in maps)
            side = maps[0].columns(item.number)
            return hiprune(item.tokens, early, late, keep, side=side, alpha=alpha)

        reduce_items(host, chosen)
        return
    layers = [MeanAttention(host, depth) for depth in (shallow, -2)]

    def pruned(tokens: Tensor, tower: Tower) -> Reduced:
        early, late = (layer.take()[:, 1:] for layer in layers)
        require_patches(method.name, tokens, tower)
        return hiprune(tokens, early, late, keep, side=tower.side, alpha=alpha)

    reduce_crops(host, pruned, before_projector=False)
