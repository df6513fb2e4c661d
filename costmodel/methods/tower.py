"""What methods inside the vision tower share: which layers count, and the tokens that come out.

A layer's attention sees the tokens that enter it; the reduction sits between attention and MLP, so the
MLP sees fewer. Features are read before the last layer or two (`vision_feature_layer`), and what is
read there decides how many tokens the projector and the language model see.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.methods.keep import greatest
from costmodel.methods.plan import MethodInput, MethodPlan, before_layers
from hardware_specs.errors import InvalidInputError, UnsupportedError

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


def check_one_layer(name: str, given: MethodInput) -> None:
    """Raise where the features of several of the tower's layers are concatenated.

    Raises:
        UnsupportedError: they are, and the method needs those of one.
    """
    layers = given.tower.feature_layers
    if len(layers) > 1:
        raise UnsupportedError(
            f"{name} needs the features of one layer of the tower, and {given.model.name} concatenates "
            f"those of layers {', '.join(map(str, layers))}; divprune, fastv and vtw take them as they are"
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
    check_one_layer(name, given)
    entering = [*(span.tokens for span in spans), left]
    # The class token goes no further, but where the model hands it on.
    dropped = tower.tokens - given.projected_tokens // greatest(given.crops, 1)
    tokens = given.crops * (entering[tower.deepest] - dropped)
    notes = {name: "the tower reduces the patches of whole crops", **notes}
    plan = before_layers(given, tokens, ops, notes, projected=tokens)
    return plan._replace(vision_spans=tuple(spans))
