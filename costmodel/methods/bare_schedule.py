"""A bare schedule: visual tokens of every language-model layer, given by hand instead of by a method.

For a method that nobody has written down yet, or an upper bound on one: the tower and the projector see
everything, the layers see what the list says, and the work of choosing costs nothing.
"""

from __future__ import annotations

from itertools import groupby
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np

from costmodel.methods.plan import MethodPlan
from costmodel.schedule import LayerSpan
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from costmodel.quantities import Num

NAME = "tokens_per_layer"


def check_schedule(tokens_per_layer: Iterable[object]) -> tuple[int, ...]:
    """Return a schedule as whole numbers.

    Raises:
        InvalidInputError: no list, or anything in it but whole numbers from 0.

    >>> check_schedule([576, 288])
    (576, 288)
    """
    if isinstance(tokens_per_layer, (str, bytes)) or not hasattr(tokens_per_layer, "__iter__"):
        raise InvalidInputError(
            f"{NAME} is a list of whole numbers, one per language-model layer, not "
            f"{tokens_per_layer!r}"
        )
    given = tuple(tokens_per_layer)
    for layer, tokens in enumerate(given):
        if isinstance(tokens, bool) or not isinstance(tokens, Integral) or tokens < 0:
            raise InvalidInputError(
                f"{NAME} must hold whole numbers from 0; layer {layer} has {tokens!r}"
            )
    return tuple(int(tokens) for tokens in given)  # type: ignore[call-overload]


def bare_plan(
    schedule: tuple[int, ...], layers: int, visual_tokens: Num, projected_tokens: Num
) -> MethodPlan:
    """Return the plan of a schedule that is given layer by layer.

    Args:
        schedule: visual tokens that enter each layer of the language model.
        layers: layers of the language model.
        visual_tokens: visual tokens there are.
        projected_tokens: tokens through the projector.

    Raises:
        InvalidInputError: not one number per layer, or more tokens than there are.

    >>> bare_plan((4, 4, 2), 3, 4, 4).llm_spans[1].tokens
    2
    """
    if len(schedule) != layers:
        raise InvalidInputError(
            f"{NAME} has {len(schedule)} numbers, but the language model has {layers} layers; give "
            "one number per layer"
        )
    most = max(schedule)
    if np.any(most > visual_tokens):
        raise InvalidInputError(
            f"{NAME} has {most} visual tokens in layer {schedule.index(most)}, more than the "
            f"{np.min(visual_tokens):g} there are; give at most as many"
        )
    spans = (LayerSpan(len(list(run)), tokens) for tokens, run in groupby(schedule))
    note = {NAME: "the schedule is given; choosing the tokens costs nothing"}
    return MethodPlan(tuple(spans), projected_tokens, notes=note)
