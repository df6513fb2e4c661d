"""VScan: local and global patches, the others merged into them, and a cut half-way through the model.

Source: "VScan: Rethinking Visual Token Reduction for Efficient Large Vision-Language Models" (Zhang et al.,
TMLR 2026, arXiv 2505.22654) and its program in Tencent/SelfEvolvingAgent.
Place: after the projector, crop by crop, and at the entry of the language model's middle layer, where the
attention of the last token to the image is computed as that layer would (PyramidDrop's ranking; positions
are renumbered there). Needs the class token's attention in two vision layers; any attention kernel serves.

Complexity, n tokens, m kept, d width: n*m*d for the nearest kept tokens and as much for the means. No
length depends on the data. Windows are 6 x 6 patches of the program's 24 x 24, and the largest that fit
other grids. Where half of the budget is no multiple of the windows, what is over is not given, as in the
program. Its form for Qwen2.5-VL, whose tower has no class token, is not here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from costmodel.methods.keep import resolve_keep
from costmodel.methods.vscan import (
    COUNT,
    CUT,
    DEEP,
    SHALLOW,
    cut_layer,
    split_budget,
    window_side,
)
from token_reduction.apply.class_attention import ClassAttention
from token_reduction.apply.places import Host, reduce_between_layers, reduce_crops
from token_reduction.pyramiddrop import PyramidStages
from token_reduction.tokens.checks import misfit, require_finite
from token_reduction.tokens.reduced import Reduced
from token_reduction.tokens.selection import (
    check_row,
    complement,
    output_places,
    take_tokens,
    top_indices,
    unit_rows,
)

if TYPE_CHECKING:
    from torch import Tensor

    from token_reduction.apply.anatomy import Tower


def vscan(
    tokens: Tensor, shallow: Tensor, deep: Tensor, keep: float = COUNT, *, side: int
) -> Reduced:
    """Keep what each window and the whole image look at, and merge the rest into it.

    Formula: of K, (K // 2) // w tokens with the largest `shallow` of each of w windows; then the K - K // 2
    others with the largest `deep`. Every token that is left is added to the kept one with the largest cosine;
    a kept token is the mean of itself and what joined it.

    Args:
        tokens: [..., n, d] projected patches in raster order, n = side * side.
        shallow: [..., h, n] the class token's row in a shallow layer.
        deep: [..., h, n] the same in a deep one.
        keep: K: a count, or a ratio rounded to nearest.
        side: patches of a row.

    Returns:
        Reduced in spatial order; scores are the mean row of `deep`, sources where each token went, sizes
        how many it stands for.

    Raises:
        InvalidInputError: shapes that do not fit, NaN or infinity, a keep out of range.

    >>> x = torch.tensor([[4.0], [1.0], [2.0], [3.0]])
    >>> row = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    >>> out = vscan(x, row, row, 1, side=2)  # no local one; all join the last
    >>> out.tokens.tolist(), out.kept_indices.tolist()
    ([[2.5]], [3])
    """
    check_row("vscan", tokens, shallow)
    check_row("vscan", tokens, deep)
    n = tokens.shape[-2]
    if side * side != n:
        raise misfit("vscan", f"a square grid of {side} x {side} tokens", tokens)
    with torch.no_grad():
        local, score = shallow.mean(dim=-2), deep.mean(dim=-2)
        norms = tokens.norm(dim=-1, keepdim=True)
        require_finite("vscan", shallow=local, deep=score, tokens=norms)
        each, others = split_budget(resolve_keep(keep, n), side)
        picks = _local(local, int(each), side)
        # Below every score: what is local is not picked again.
        left = score.scatter(-1, picks, -1.0)
        picks = torch.cat((picks, top_indices(left, int(others))), dim=-1)
        kept = picks.sort(dim=-1).values
        rest = complement(kept, n)
        merged, sources, sizes = _merge(tokens, norms, kept, rest)
    return Reduced(
        tokens=merged, kept_indices=kept, selection_order=picks, scores=score, sources=sources,
        sizes=sizes,
    )  # fmt: skip


def _local(scores: Tensor, each: int, side: int) -> Tensor:
    """Places [..., w * each] of the largest scores of every window."""
    window = window_side(side)
    lead, across = scores.shape[:-1], side // window
    grid = torch.arange(side * side).view(across, window, across, window).transpose(1, 2)
    places = grid.reshape(across * across, window * window).to(scores.device, non_blocking=True)
    best = top_indices(scores[..., places], each)
    return places.expand(*lead, *places.shape).gather(-1, best).flatten(-2)


def _merge(
    tokens: Tensor, norms: Tensor, kept: Tensor, rest: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Means of kept tokens and what joins them, where every token went, and how many each stands for."""
    unit, count = unit_rows(tokens, norms), kept.shape[-1]
    cosine = take_tokens(unit, rest) @ take_tokens(unit, kept).transpose(-1, -2)
    nearest = cosine.argmax(dim=-1)
    share = torch.nn.functional.one_hot(nearest, count).to(tokens.dtype)
    sizes = share.sum(dim=-2).unsqueeze(-1) + 1
    joined = share.transpose(-1, -2) @ take_tokens(tokens, rest)
    sources = output_places(kept, tokens.shape[-2]).scatter(-1, rest, nearest)
    return (take_tokens(tokens, kept) + joined) / sizes, sources, sizes


def plug(host: Host) -> None:
    """Merge the projected patches of every crop, and cut in the middle of the language model."""
    method, parts = host.method, host.parts
    cut, deep = cut_layer(len(parts.layers), CUT.of(method)), DEEP.of(method)
    rows = [ClassAttention(host, depth) for depth in (SHALLOW.of(method), -2)]
    before, inside = host.in_two()

    def merged(tokens: Tensor, tower: Tower) -> Reduced:
        shallow, late = (row.of_patches(tokens, tower) for row in rows)
        return vscan(tokens, shallow, late, method.settled_keep, side=tower.side)

    reduce_crops(before, merged, before_projector=False)
    reduce_between_layers(
        inside, lambda *_: PyramidStages(method.name, parts, {cut: deep}, one_stays=True)
    )
