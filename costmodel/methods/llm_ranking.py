"""Work that the methods between language-model layers share: norms, rotations, picking of tokens.

Methods whose scores are normalised over one sequence work on one sequence of the batch at a time, so
their kernels grow with the batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.methods.keep import some
from costmodel.methods.pieces import passes, sequence_gather, sort
from hardware_specs.errors import InvalidInputError
from hardware_specs.showing import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from costmodel.methods.plan import MethodInput
    from costmodel.quantities import Num, OpCost


def weighing_warnings(name: str, given: MethodInput) -> tuple[str, ...]:
    """Return what to know of a prompt without text, whose visual tokens nothing behind them looks at."""
    if not some((given.text_tokens < 1) & (given.visual_tokens > 0)):
        return ()
    return (
        f"{name} weighs visual tokens by the text behind them: with text_tokens=0 the visual work alone is "
        "priced, and no model runs it",
    )


def cut_layers(
    name: str, asked: Sequence[int], layers: int, *, behind: bool = False, option: str = "layers"
) -> tuple[int, ...]:
    """Return the layers at whose entry a method cuts, in order; it acts at, or `behind`, those asked.

    Raises:
        InvalidInputError: a layer the model does not have, or behind which there is none.

    >>> cut_layers("sparsevlm", (6, 2), 8, behind=True)
    (3, 7)
    """
    last = layers - 1 - behind
    beyond = next((layer for layer in asked if layer > last), None)
    if beyond is not None:
        raise InvalidInputError(
            f"{name} acts at layer {shown(beyond)} of the language model, and with its layers 0 to "
            f"{layers - 1}, the last that can be is {last}; give {option}="
        )
    return tuple(sorted({layer + behind for layer in asked}))


def eager_norm(name: str, given: MethodInput, rows: Num, count: Num) -> OpCost:
    """Return an RMSNorm as `transformers` runs it, a chain of kernels that passes through float32."""
    text, num = given.model.text, given.precision.text
    return passes(
        name, rows * text.hidden_size, num, reads=10, writes=8, kernels=8, flops=4, count=count
    )


def rotated(name: str, given: MethodInput, rows: Num, heads: int, count: Num) -> OpCost:
    """Return the rotary embedding of some rows, a chain of kernels: negate, join, two products, a sum."""
    elements = rows * heads * given.model.text.head_dim
    return passes(
        name, elements, given.precision.text, reads=6, writes=4.5, kernels=5, flops=3, count=count
    )


def picked(given: MethodInput, n: Num, kept: Num, count: Num, *, rank: bool = True) -> list[OpCost]:
    """Return the sorts that turn scores into the places of what stays, in `count` sequences.

    `rank` says whether the scores are sorted, too.
    """
    num = given.precision.text
    ops = [
        sort("order", 1, kept, num, count),
        sort("dropped", 1, n, num, count),
        sort("kept_places", 1, given.text_tokens + n, num, count),
        # What goes is marked, twice, before it is sorted out; and scores are looked at for NaN.
        passes("marks", given.text_tokens + n, num, reads=6, writes=6, kernels=10, flops=0,
               count=count),
    ]  # fmt: skip
    return [sort("rank", 1, n, num, count), *ops] if rank else ops


def narrowed(
    given: MethodInput, n: Num, kept: Num, runs: Num, *, moves: int = 8, kernels: int = 23
) -> list[OpCost]:
    """Return what shortens hidden states, positions and the batch's bookkeeping to the tokens that stay.

    `kernels` make the indices, which are read and written `moves` times.
    """
    num, b, s = given.precision.text, given.batch_size, given.text_tokens + n
    return [
        sort("gone", b, n, num, runs),
        sort("left", b, s, num, runs),
        passes(
            "indices", b * s, num, reads=moves, writes=moves, kernels=kernels, flops=0, count=runs
        ),
        *sequence_gather(given, kept, runs),
    ]
