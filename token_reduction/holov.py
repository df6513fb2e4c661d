"""HoloV: chunks of an image share the tokens, by attention and by how varied they are.

Source: "Don't Just Chase 'Highlighted Tokens' in MLLMs: Revisiting Visual Holistic Context Retention" (Zou et
al., NeurIPS 2025, arXiv 2510.02912) and its program obananas/HoloV.
Place: after the projector, each crop by itself; attention of the CLIP layer whose output is the feature (-2).

Complexity, n tokens, P chunks, d width: n^2/P*d for the cosines within chunks, a sort. The length is K
whatever the data say: quotas beyond a chunk's tokens are filled up with zero vectors at the end.

As in the program: chunks are consecutive pieces of the raster order, not blocks of the picture; the zeroed
diagonal of a chunk's cosines counts as a deviation from their mean; the scores only make the quotas, and
within a chunk the attention alone decides; tokens come chunk by chunk, by falling attention, and are not
sorted. Where two chunks weigh the same, the first gets the token that is left over; the program leaves that
open.

Where patches are merged behind a tower of native resolution (Qwen's), each image by itself, as in the
program's Qwen2.5-VL form: by the attention that a token receives in the last layer, in int(16 n / 9 K)
chunks. That form reads the attention in the order of the tower's windows; here it is in raster order. On
three axes tokens keep their places and stand in spatial order, zero vectors at the image's last place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from costmodel.methods.holov import CHUNKS, COUNT, FEW, chunk_shape, chunks_of
from costmodel.methods.keep import resolve_keep
from token_reduction.apply.class_attention import ClassAttention
from token_reduction.apply.places import Host, reduce_crops, reduce_items
from token_reduction.apply.received_attention import ReceivedAttention
from token_reduction.tokens.checks import require_finite
from token_reduction.tokens.reduced import Reduced
from token_reduction.tokens.selection import check_row, take_tokens, top_indices

if TYPE_CHECKING:
    from torch import Tensor

    from token_reduction.apply.anatomy import Tower
    from token_reduction.apply.crops import Item

#: Weight of variety beside attention, what attention is multiplied by, and the program's slack.
VARIETY, SCALE, SLACK = 0.09, 1e3, 1e-6


def holov(
    tokens: Tensor, cls_attention: Tensor, keep: float = COUNT, *, chunks: int = FEW
) -> Reduced:
    """Keep of each chunk as many tokens as its weight says, by the class token's attention.

    Formula, in a chunk of s tokens: S = cosines with a zero diagonal, m = row sums / (s - 1), v = sum of (S
    - m)^2 / (s - 1), a = 1000 x mean-head attention; its weight is the mean of a + 0.09 v mean(a) /
    (mean(v) + 1e-6). Quotas are floor(weight / sum of weights x K), and one more for the largest until K
    are given.

    Args:
        tokens: [..., n, d] in raster order.
        cls_attention: [..., h, n] the class token's row without its own column.
        keep: K: a count, or a ratio rounded to nearest.
        chunks: pieces of the raster order.

    Returns:
        Reduced with tokens [..., K, d], zeros where `valid` is False; kept_indices are -1 there.

    Raises:
        InvalidInputError: lengths that differ, NaN or infinity, a keep out of range.

    >>> row = torch.tensor([[0.1, 0.5, 0.2, 0.2]])
    >>> holov(torch.arange(4.0).unsqueeze(-1), row, 2, chunks=2).kept_indices.tolist()
    [1, 0]
    """
    check_row("holov", tokens, cls_attention)
    attention = cls_attention.mean(dim=-2)
    norms = tokens.norm(dim=-1, keepdim=True)
    require_finite("holov", cls_attention=attention, tokens=norms)
    n = tokens.shape[-2]
    count = resolve_keep(keep, n)
    pieces, size = (int(number) for number in chunk_shape(n, chunks))
    # The first n % P chunks have one token more than the others.
    lengths = torch.full((pieces,), n // pieces)
    lengths[: n % pieces] += 1
    starts = lengths.cumsum(0) - lengths
    within = torch.arange(size)
    inside = within < lengths.unsqueeze(-1)
    slots = (starts.unsqueeze(-1) + within).clamp_max(n - 1)
    chunk_of = torch.arange(pieces).repeat_interleave(lengths)
    lengths, inside, slots, chunk_of = (
        part.to(tokens.device, non_blocking=True) for part in (lengths, inside, slots, chunk_of)
    )
    with torch.no_grad():
        weights = _weights(tokens / (norms + SLACK), attention, slots, inside, lengths)
        quotas = _quotas(weights, count)
        # Chunk by chunk, by falling attention; whoever is within the quota comes first.
        best = top_indices(attention, n)
        order = best.gather(-1, chunk_of[best].argsort(dim=-1, stable=True))
        place = torch.arange(n, device=tokens.device) - (lengths.cumsum(0) - lengths)[chunk_of]
        beyond = place >= quotas[..., chunk_of]
        order = order.gather(-1, beyond.to(torch.uint8).argsort(dim=-1, stable=True))[..., :count]
        held = torch.minimum(quotas, lengths).sum(dim=-1, keepdim=True)
        valid = torch.arange(count, device=tokens.device) < held
    kept = order.where(valid, -1)
    return Reduced(
        tokens=take_tokens(tokens, order) * valid.unsqueeze(-1).to(tokens.dtype),
        kept_indices=kept,
        selection_order=kept,
        cls_attention=attention,
        valid=valid,
    )


def _weights(
    unit: Tensor, attention: Tensor, slots: Tensor, inside: Tensor, lengths: Tensor
) -> Tensor:
    """Weight of each chunk, [..., P], in float32 at least."""
    pieces, size = slots.shape
    lead = unit.shape[:-2]
    flat = slots.flatten().expand(*lead, -1)
    even = pieces * size == unit.shape[-2]  # then the chunks lie there as they are
    rows = unit if even else take_tokens(unit, flat)
    rows = rows.reshape(*lead, pieces, size, unit.shape[-1])
    cosine = rows @ rows.transpose(-1, -2)
    cosine = cosine.to(torch.promote_types(cosine.dtype, torch.float32))
    pair = inside.unsqueeze(-1) & inside.unsqueeze(-2)
    other = pair & ~torch.eye(size, dtype=torch.bool, device=pair.device)
    others = (lengths - 1).clamp_min(1).unsqueeze(-1)
    masked = cosine * other
    mean = masked.sum(dim=-1) / others
    variance = ((masked - mean.unsqueeze(-1)).square() * pair).sum(dim=-1) / others
    looked = attention.gather(-1, flat).view(*lead, pieces, size).to(variance.dtype) * inside
    # A chunk of one token is weighed by its attention as it is.
    looked = looked.sum(dim=-1) / lengths * torch.where(lengths > 1, SCALE, 1.0)
    varied = variance.sum(dim=-1) / lengths
    return looked + VARIETY * varied * looked / (varied + SLACK) * (lengths > 1)


def _quotas(weights: Tensor, count: int) -> Tensor:
    """Tokens of each chunk, [..., P]."""
    shares = weights / (weights.sum(dim=-1, keepdim=True) + SLACK)
    quotas = (shares * count).floor().long()
    left = count - quotas.sum(dim=-1, keepdim=True)
    places = top_indices(shares, shares.shape[-1]).argsort(dim=-1)
    return quotas + (places < left)


def plug(host: Host) -> None:
    """Share the projected patches of every crop, or the merged tokens of every image, among its chunks."""
    keep, chunks = host.method.settled_keep, CHUNKS.of(host.method)
    if host.parts.three_axes:
        received = ReceivedAttention(host)

        def spread(item: Item) -> Reduced:
            n, (looked, _) = len(item.tokens), received.of(item.number)
            count = resolve_keep(keep, n)
            pieces = int(chunks_of(chunks, n, count))
            return holov(item.tokens, looked.unsqueeze(0), count, chunks=pieces)

        reduce_items(host, spread)
        return
    attention = ClassAttention(host)

    def shared(tokens: Tensor, tower: Tower) -> Reduced:
        return holov(tokens, attention.of_patches(tokens, tower), keep, chunks=chunks or FEW)

    reduce_crops(host, shared, before_projector=False)
