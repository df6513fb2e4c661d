"""A cache that holds fewer tokens than the caller thinks, and the steps that continue it.

After a prompt was shortened, its cache is shorter than the caller's attention mask and position ids,
which count every placeholder. Each later call on that cache gets a mask over what is really there and
positions without the gap, so that the language model sees a plain continuation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from hardware_specs.errors import UnsupportedError

if TYPE_CHECKING:
    from torch import Tensor

_NOTE = "_reduced_prefix"


@dataclass(frozen=True, slots=True)
class Prefix:
    """What a cache holds of the prompts so far.

    Attributes:
        mask: [b, s'] with 0 for padding, or None for no padding.
        length: s', tokens in the cache when the last prompt was in.
        given: tokens of those prompts as the caller counts them.
        dropped: [b] places that what follows moves up in each row.
    """

    mask: Tensor | None
    length: int
    given: int
    dropped: Tensor


def prefix_of(cache: Any) -> Prefix | None:
    """Return what a cache holds of reduced prompts, or None.

    The note sits on the cache itself, so a copied cache carries it along.
    """
    found: Prefix | None = getattr(cache, _NOTE, None)
    return found


def note_prefix(cache: Any, prefix: Prefix | None) -> None:
    """Write on a cache, if there is one, what it holds from now on; None for nothing reduced."""
    if cache is not None and not (prefix is None and prefix_of(cache) is None):
        setattr(cache, _NOTE, prefix)


def continue_from(
    prefix: Prefix, cached: int, count: int, mask: Tensor | None, positions: Tensor | None
) -> tuple[int, Tensor | None, Tensor | None]:
    """Translate a call that continues a reduced prompt: new tokens, and mask and positions for them.

    Args:
        prefix: what the cache holds of prompts.
        cached: tokens in the cache now.
        count: tokens given.
        mask: [b, all tokens as the caller counts them], or None.
        positions: [b or 1, count or more] as the caller counts them, or None.

    Raises:
        UnsupportedError: several new tokens without a mask to say which are new.
    """
    since = cached - prefix.length
    if mask is None:
        if count > 1 and prefix.given != prefix.length:
            # `generate` slices a whole conversation by the cache's length, which is shorter than
            # the caller's count: without a mask the superfluous tokens cannot be told.
            raise UnsupportedError(
                f"{count} tokens continue a cache that holds a reduced prompt, without an attention "
                "mask to say which of them are new; pass one over the whole conversation, or start "
                "with a new cache"
            )
        new = count
    else:
        new = min(count, int(mask.shape[1]) - prefix.given - since)
        if new < 1:
            raise UnsupportedError(
                f"the attention mask covers {mask.shape[1]} tokens, all of which the cache holds "
                "already; pass one that covers the new tokens too"
            )
    more = since + new
    tail = None if mask is None else mask[:, prefix.given : prefix.given + more]
    longer = joined(prefix.mask, tail, (prefix.length, more))
    return new, longer, _moved(prefix, new, positions)


def joined(held: Tensor | None, new: Tensor | None, counts: tuple[int, int]) -> Tensor | None:
    """Set two masks of so many tokens side by side, [b, s] each, None where there is no padding."""
    like = new if held is None else held
    if like is None:
        return None
    parts = (
        like.new_ones(len(like), count) if part is None else part.to(like)
        for part, count in zip((held, new), counts, strict=True)
    )
    return torch.cat(tuple(parts), dim=1)


def _moved(prefix: Prefix, new: int, positions: Tensor | None) -> Tensor | None:
    if positions is None:
        return None
    last = positions[..., -new:]
    if last.ndim == 2:
        last = last.expand(prefix.dropped.shape[0], -1)
    return last - prefix.dropped.unsqueeze(-1)
