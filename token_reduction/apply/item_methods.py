"""Methods that take all tokens of one image or video after the projector, tiles and newlines joined."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from token_reduction.divprune import divprune

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from token_reduction.reduced import Reduced
    from token_reduction.registry import Method

ITEM_METHODS = ("divprune",)


def item_function(method: Method) -> Callable[[Tensor], Reduced]:
    """Return what reduces the tokens [n, d] of one image or video.

    Args:
        method: one of `ITEM_METHODS`.
    """
    keep: Any = method.keep
    dtype = compute_dtype(method)
    return lambda tokens: divprune(tokens, keep, compute_dtype=dtype)


def compute_dtype(method: Method) -> torch.dtype | None:
    """Return the precision of DivPrune's distances; None is the tokens' own."""
    name = method.options["compute_dtype"]
    if name is None:
        return None
    found: torch.dtype = getattr(torch, str(name))
    return found
