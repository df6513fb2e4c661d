"""Index operations the methods share: batched over leading dimensions, no device read-back.

Boolean masks and `nonzero` would make the host wait for a length; where the count is known, a
stable sort of a mask gives the same indices without that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from hardware_specs.errors import InvalidInputError
from token_reduction.tokens.checks import misfit
from token_reduction.tokens.reduced import Reduced

if TYPE_CHECKING:
    from torch import Tensor


def take_tokens(tokens: Tensor, indices: Tensor) -> Tensor:
    """Pick rows of a token list: [..., n, d] and [..., m] give [..., m, d].

    >>> take_tokens(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([2, 0])).flatten().tolist()
    [3.0, 1.0]
    """
    flat, rows = flat_rows(tokens, indices)
    return flat.index_select(0, rows.flatten()).reshape(*rows.shape, tokens.shape[-1])


def picked_tokens(tokens: Tensor, picks: Tensor, **more: Any) -> Reduced:
    """Keep the tokens picked, [..., m], in spatial order; `more` is what else the method says."""
    kept = picks.sort(dim=-1).values
    return Reduced(take_tokens(tokens, kept), kept_indices=kept, selection_order=picks, **more)


def flat_rows(tokens: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """One table of all rows, and the indices into it: [..., n, d] and [..., m] give [b*n, d].

    Copying whole rows is several times faster than a gather with an index per value.
    """
    n = tokens.shape[-2]
    lead = indices.shape[:-1]
    tokens = tokens.expand(*lead, *tokens.shape[-2:])
    batch = lead.numel()
    if batch > 1:
        first = torch.arange(0, batch * n, n, device=indices.device).reshape(*lead, 1)
        indices = indices + first
    return tokens.reshape(batch * n, tokens.shape[-1]), indices


def unit_rows(values: Tensor, norms: Tensor | None = None) -> Tensor:
    """Divide rows [..., n, d] by their lengths, [..., n, 1] if known; zeros stay zeros in any precision.

    >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    lengths = values.norm(dim=-1, keepdim=True) if norms is None else norms
    return values / lengths.clamp_min(torch.finfo(values.dtype).tiny)


def frame_cosines(frames: Tensor, lengths: Tensor, later: slice, earlier: slice) -> Tensor:
    """Cosines [f, p] of tokens at the same places of two runs of frames.

    Args:
        frames: [t, p, d].
        lengths: [t, p, 1] of their tokens, none of them 0.
        later: frames of the one run.
        earlier: as many of the other.

    >>> x = torch.tensor([[[3.0, 4.0]], [[4.0, 3.0]]])
    >>> frame_cosines(x, x.norm(dim=-1, keepdim=True), slice(1, 2), slice(0, 1)).tolist()
    [[0.9600000381469727]]
    """
    x, y, x_lengths = frames[later], frames[earlier], lengths[later]
    if len(x) > 1 and x.device.type == "cpu":
        # A pair of frames fits the cache, where a pass over the whole clip goes through memory.
        rows = zip(x, x_lengths, y, strict=True)
        products = torch.stack([((a / length) * b).sum(dim=-1) for a, length, b in rows])
    else:
        products = ((x / x_lengths) * y).sum(dim=-1)
    return products / lengths[earlier].squeeze(-1)


def top_indices(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest scores, largest first; equal scores in ascending index order.

    torch.topk leaves ties open; a stable sort does not, and is as fast at these lengths.

    >>> top_indices(torch.tensor([1.0, 3.0, 3.0, 2.0]), 3).tolist()
    [1, 2, 3]
    """
    return torch.sort(scores, dim=-1, descending=True, stable=True).indices[..., :count]


def bottom_indices(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` smallest scores, smallest first; ties in ascending index order."""
    return torch.sort(scores, dim=-1, stable=True).indices[..., :count]


def complement(indices: Tensor, n: int) -> Tensor:
    """Indices of 0..n-1 that are not listed, ascending; `indices` holds no repeats.

    >>> complement(torch.tensor([3, 1]), 5).tolist()
    [0, 2, 4]
    """
    listed = torch.zeros(*indices.shape[:-1], n, dtype=torch.uint8, device=indices.device)
    listed = listed.scatter(-1, indices, 1)
    order = torch.sort(listed, dim=-1, stable=True).indices
    return order[..., : n - indices.shape[-1]]


def output_places(indices: Tensor, length: int, *, others: int = 0) -> Tensor:
    """Place in `indices` of each of `length` tokens, [..., length]; `others` for what is not listed.

    >>> output_places(torch.tensor([3, 1]), 4, others=-1).tolist()
    [-1, 1, -1, 0]
    """
    places = torch.arange(indices.shape[-1], device=indices.device).expand(indices.shape)
    return places.new_full((*indices.shape[:-1], length), others).scatter(-1, indices, places)


def image_positions(start: int | Tensor, image_tokens: int, device: torch.device) -> Tensor:
    """Sequence positions of the image tokens: [n], or [..., n] for one start per sequence."""
    offsets = torch.arange(image_tokens, device=device)
    if isinstance(start, int):
        return offsets + start
    return start.to(device).unsqueeze(-1) + offsets


def check_image_span(start: int | Tensor, image_tokens: int, length: int) -> None:
    """Refuse an image slice that does not lie in a sequence of `length` tokens.

    One start per sequence (a tensor) is trusted: reading it back would synchronise.

    Raises:
        InvalidInputError: a negative start, no image tokens, or an end beyond the sequence.
    """
    if image_tokens < 1:
        raise InvalidInputError(f"image_tokens={image_tokens}; there must be at least one")
    low = start if isinstance(start, int) else 0
    if low < 0 or low + image_tokens > length:
        raise InvalidInputError(
            f"image tokens {low}..{low + image_tokens - 1} do not lie in a sequence of "
            f"{length} tokens; check start and image_tokens"
        )


def check_variant(method: str, variant: str, known: tuple[str, ...] = ("program", "paper")) -> None:
    """Refuse a variant the method does not have.

    Raises:
        InvalidInputError: naming the variants there are.
    """
    if variant not in known:
        raise InvalidInputError(
            f"{method} has no variant {variant!r}; there is: {', '.join(known)}"
        )


def check_row(method: str, tokens: Tensor, cls_attention: Tensor) -> None:
    """Refuse a class-token row [..., h, n] that does not belong to tokens [..., n, d].

    Raises:
        InvalidInputError: the shapes do not fit; says which were given.
    """
    if cls_attention.ndim < 2 or (
        (*cls_attention.shape[:-2], cls_attention.shape[-1]) != tokens.shape[:-1]
    ):
        takes = "tokens [..., n, d] and the class token's attention [..., h, n] to them"
        raise misfit(method, takes, tokens, cls_attention)
