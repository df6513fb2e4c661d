"""What methods inside the vision tower share: which layers count, and the tokens that come out.

A layer's attention sees the tokens that enter it; the reduction sits between attention and MLP, so the
MLP sees fewer. Features are read before the last layer or two (`vision_feature_layer`), and what is
read there decides how many tokens the projector and the language model see.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.methods.plan import MethodInput, MethodPlan, before_layers
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from costmodel.quantities import Num, OpCost
    from costmodel.schedule import LayerSpan


def check_tower_layers(name: str, acting: Sequence[int], layers: int) -> None:
    """Raise unless the tower has every layer that a method acts in.

    >>> check_tower_layers("evit", (3, 6, 9), 8)
    Traceback (most recent call last):
    hardware_specs.errors.InvalidInputError: evit acts in vision layers 3, 6, 9, but this tower has \
layers 0 to 7
    """
    if max(acting) >= layers:
        raise InvalidInputError(
            f"{name} acts in vision layers {', '.join(map(str, acting))}, but this tower has "
            f"layers 0 to {layers - 1}"
        )


def tower_plan(
    name: str,
    given: MethodInput,
    spans: Sequence[LayerSpan],
    left: Num,
    ops: Sequence[OpCost],
    notes: Mapping[str, str] = {},
) -> MethodPlan:
    """Return the plan of a method inside the tower: a span per layer that runs, and what the last leaves."""
    tower = given.tower
    entering = [*(span.tokens for span in spans), left]
    dropped = tower.tokens - tower.selected_tokens
    tokens = given.crops * (entering[tower.deepest] - dropped)
    notes = {name: "the tower reduces the patches of whole crops", **notes}
    plan = before_layers(given, tokens, ops, notes, projected=tokens)
    return plan._replace(vision_spans=tuple(spans))
