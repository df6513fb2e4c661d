"""What methods inside the vision tower share: which layers count, and the tokens that come out.

A layer's attention sees the tokens that enter it; the reduction sits between attention and MLP, so the
MLP sees fewer. Features are read before the last layer or two (`vision_feature_layer`), and what is
read there decides how many tokens the projector and the language model see.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.methods.plan import MethodPlan
from costmodel.methods.token_lists import vision_parts
from costmodel.schedule import LayerSpan
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from costmodel.methods.plan import MethodInput
    from costmodel.quantities import Num, OpCost


def feature_depth(name: str, given: MethodInput) -> int:
    """Return how many layers run before the deepest features are read.

    >>> from costmodel import load_model
    >>> from types import SimpleNamespace
    >>> feature_depth("tome", SimpleNamespace(model=load_model("llava-1.5-7b")))  # of 24
    23
    """
    tower, _ = vision_parts(name, given.model)
    return tower.deepest


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
    entering: Sequence[Num],
    ops: Sequence[OpCost],
    notes: dict[str, str],
) -> MethodPlan:
    """Return the plan of a method inside the tower.

    Args:
        name: the method.
        given: the input of the method's plan.
        spans: one per layer of the tower that runs.
        entering: tokens entering each layer, and after them those leaving the last.
        ops: its own ops.
        notes: what was assumed.
    """
    tower, _ = vision_parts(name, given.model)
    dropped = tower.tokens - tower.selected_tokens
    per_crop = entering[feature_depth(name, given)] - dropped
    crops = given.crops
    tokens = crops * per_crop
    span = LayerSpan(given.model.text.num_layers, tokens)
    note = {name: "the tower reduces the patches of whole crops"}
    return MethodPlan((span,), tokens, tuple(spans), tuple(ops), {**note, **notes})
