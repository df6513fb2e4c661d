"""A bare schedule: visual tokens of every language-model layer, given by hand instead of by a method.

It serves a method that has no module yet, or an upper bound on one: the tower and the projector see every
token, the layers see what the list says, and choosing the tokens costs nothing.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from costmodel.methods.plan import MethodPlan
from costmodel.schedule import LayerSpan
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from costmodel.quantities import Num

NAME = "tokens_per_layer"


def bare_plan(
    schedule: tuple[int, ...], layers: int, visual_tokens: Num, projected_tokens: Num
) -> MethodPlan:
    """Return the plan of a schedule: the visual tokens that enter each of the language model's `layers`.

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
