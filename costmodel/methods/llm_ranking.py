"""Work that the methods between language-model layers share: norms, rotations, picking of tokens.

Methods whose scores are normalised over one sequence work on one sequence of the batch at a time, so
their kernels grow with the batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.methods.fastv import sequence_gather
from costmodel.methods.pieces import passes, sort

if TYPE_CHECKING:
    from costmodel.methods.registry import MethodRequest
    from costmodel.quantities import Num, OpCost


def eager_norm(name: str, request: MethodRequest, rows: Num, count: Num) -> OpCost:
    """Return an RMSNorm as `transformers` runs it, a chain of kernels that passes through float32."""
    text, num = request.model.text, request.precision.text
    return passes(
        name, rows * text.hidden_size, num, reads=10, writes=8, kernels=8, flops=4, count=count
    )


def rotated(name: str, request: MethodRequest, rows: Num, heads: int, count: Num) -> OpCost:
    """Return the rotary embedding of some rows, a chain of kernels: negate, join, two products, a sum."""
    elements = rows * heads * request.model.text.head_dim
    return passes(
        name, elements, request.precision.text, reads=6, writes=4.5, kernels=5, flops=3, count=count
    )


def picked(
    request: MethodRequest, n: Num, kept: Num, count: Num, *, rank: bool = True
) -> list[OpCost]:
    """Return the sorts that turn scores into the places that stay, for one sequence.

    Args:
        request: the request.
        n: visual tokens there are.
        kept: visual tokens that stay.
        count: sequences.
        rank: whether the scores are sorted, too.
    """
    num = request.precision.text
    ops = [
        sort("order", 1, kept, num, count),
        sort("dropped", 1, n, num, count),
        sort("kept_places", 1, request.text_tokens + n, num, count),
        # What goes is marked, twice, before it is sorted out; and scores are looked at for NaN.
        passes("marks", request.text_tokens + n, num, reads=6, writes=6, kernels=10, flops=0,
               count=count),
    ]  # fmt: skip
    return [sort("rank", 1, n, num, count), *ops] if rank else ops


def narrowed(request: MethodRequest, n: Num, kept: Num, runs: Num) -> list[OpCost]:
    """Return what shortens hidden states, positions and notes of the batch to the tokens that stay.

    Args:
        request: the request.
        n: visual tokens there are.
        kept: visual tokens that stay.
        runs: 1 where there is anything to reduce, else 0.
    """
    num, b, s = request.precision.text, request.batch_size, request.text_tokens + n
    return [
        sort("gone", b, n, num, runs),
        sort("left", b, s, num, runs),
        passes("indices", b * s, num, reads=8, writes=8, kernels=23, flops=0, count=runs),
        *sequence_gather(request, kept, runs),
    ]
