"""What the methods between the language model's layers share: which layers cut, and which tokens stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from hardware_specs.errors import InvalidInputError, UnsupportedError
from token_reduction.apply.inside_llm import Policy
from token_reduction.tokens.selection import complement, take_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from costmodel.methods import Method
    from token_reduction.apply.anatomy import Parts
    from token_reduction.apply.inside_llm import Prefill
    from token_reduction.apply.llm_tokens import Group, Tokens
    from token_reduction.tokens.reduced import Selection


class OneCut(Policy):
    """A method that cuts at one layer.

    Args:
        method: what is asked for.
        parts: the model.
        layer: where it cuts; None is the method's layer, or else the entry of the first.

    Raises:
        InvalidInputError: a layer the model does not have.
    """

    def __init__(self, method: Method, parts: Parts, layer: int | None = None) -> None:
        layer = (method.layer or 0) if layer is None else layer
        if layer >= len(parts.layers):
            raise InvalidInputError(
                f"{method.name} at layer {layer}: this model's language model has layers 0 to "
                f"{len(parts.layers) - 1}"
            )
        self.method = method
        self.layer = layer

    def cuts_at(self, layer: int) -> bool:
        """At its one layer."""
        return layer == self.layer


def stack_rows(name: str, rows: list[Tensor]) -> Tensor:
    """Return as one tensor, [r, m], what each row of a group keeps, [m].

    Raises:
        UnsupportedError: the rows keep different numbers of tokens.
    """
    if len({len(kept) for kept in rows}) > 1:
        raise UnsupportedError(
            f"{name} keeps a share of every image, and sequences with equally many visual tokens, in images "
            "of other sizes, are left with different numbers; give them one by one"
        )
    return torch.stack(rows)


def contiguous_start(group: Group, now: Prefill, name: str) -> Tensor:
    """Return where the visual tokens of each row of a group begin, [r].

    Raises:
        UnsupportedError: text stands between the visual tokens of a row.
    """
    for row in group.rows:
        marks = now.visual_places[row]
        if len(marks) and marks[-1] - marks[0] + 1 != len(marks):
            raise UnsupportedError(
                f"{name} takes the rows after the image, and sequence {row} has text between its "
                "visual tokens; give one image per sequence"
            )
    return now.tokens.local(group)[:, 0]


def require_text_behind(now: Prefill, name: str) -> None:
    """Raise where nothing behind the visual tokens of a row looks at them.

    Raises:
        InvalidInputError: a prompt ends with visual tokens, all of which would weigh the same: nothing.
    """
    for row, (marks, last) in enumerate(zip(now.visual_places, now.last_places, strict=True)):
        if len(marks) and marks[-1] == last:
            raise InvalidInputError(
                f"{name} weighs visual tokens by the text behind them, and sequence {row} has none; "
                "put the question behind the image"
            )


def by_sequence(
    now: Prefill, name: str, choose: Callable[[int, slice, int, int], Selection]
) -> list[Tensor]:
    """Return, group by group, the visual tokens that a method keeps of each sequence by itself.

    `choose` is given a row, its span, where its visual tokens begin in it, and how many there are.

    Raises:
        UnsupportedError: text stands between the visual tokens of a row.
    """
    chosen = []
    for group in now.tokens.groups:
        count = group.places.shape[1]
        if not count:
            chosen.append(group.places)
            continue
        contiguous_start(group, now, name)
        kept = [
            choose(row, now.tokens.span(row), text_before(now, row), count) for row in group.rows
        ]
        chosen.append(torch.stack([selection.image_indices for selection in kept]))
    return chosen


def rows_of(values: Tensor, group: Group, tokens: Tokens) -> Tensor:
    """Return the rows of a batch that belong to a group."""
    if len(group.rows) == len(tokens.counts):
        return values
    return values[list(group.rows)]


def visual_states(hidden: Tensor, group: Group, tokens: Tokens) -> Tensor:
    """Return the hidden states of a group's visual tokens, [r, n, d]."""
    return take_tokens(rows_of(hidden, group, tokens), tokens.local(group))


def text_before(now: Prefill, row: int) -> int:
    """Tokens of a row in front of its visual tokens, padding not counted."""
    return int(now.visual_places[row][0]) - int(now.whole.span(row).start)


def images_of(now: Prefill, row: int, hidden: Tensor) -> tuple[Tensor, list[tuple[int, int]]]:
    """Return the states of a row, [s, d], with first token and number of tokens of every image in them.

    Padding is left out, and text inside an image or clip stands in front of all. Only for policies that are
    `by_piece`.
    """
    states = hidden[row, now.tokens.span(row)]
    marks = now.visual_places[row] - now.whole.span(row).start
    ends = np.append(np.flatnonzero(np.diff(now.pieces[row])) + 1, len(marks))
    counts = np.diff(ends, prepend=0)
    starts = marks[ends - counts]
    if (marks[ends - 1] - starts + 1 != counts).any():
        places = torch.from_numpy(marks)
        order = torch.cat((complement(places, len(states)), places))
        states = states[order.to(states.device, non_blocking=True)]
        starts = ends - counts + len(states) - len(marks)
    return states, list(zip(starts.tolist(), counts.tolist(), strict=True))
