"""The registry of method costs: names to plans, each module imported when its method is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from hardware_specs.errors import UnknownMethodError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from costmodel.models import ModelConfig
    from costmodel.precision import Precision
    from costmodel.quantities import Num, OpCost
    from costmodel.schedule import LayerSpan


class MethodRequest(NamedTuple):
    """What a method is asked to reduce; counts are per sample, numbers or arrays over scenarios.

    Attributes:
        model: the model.
        precision: the numerics of every module.
        visual_tokens: visual tokens before the reduction.
        projected_tokens: tokens through the projector without a reduction.
        crops: crops or frames through the vision tower.
        text_tokens: text tokens.
        batch_size: samples.
        keep: a count (int), a ratio (float in (0, 1]), or None for the method's default.
        layer: the language-model layer of methods that have one, or None for their default.
        execution: the execution plan.
        vision_layers: layers of the tower that run.
    """

    model: ModelConfig
    precision: Precision
    visual_tokens: Num
    projected_tokens: Num
    crops: Num
    text_tokens: Num
    batch_size: Num
    keep: int | float | None
    layer: int | None
    execution: str
    vision_layers: int


class MethodPlan(NamedTuple):
    """What a method makes of a request.

    Attributes:
        llm_spans: visual tokens per layer of the language model.
        projected_tokens: visual tokens through the projector.
        vision_spans: tokens per layer of the vision tower; None leaves the tower as it is.
        ops: the method's own ops, for the whole batch.
        notes: what was assumed, by name.
    """

    llm_spans: tuple[LayerSpan, ...]
    projected_tokens: Num
    vision_spans: tuple[LayerSpan, ...] | None = None
    ops: tuple[OpCost, ...] = ()
    notes: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class MethodCost:
    """One method in the cost model.

    Attributes:
        name: its name, as in `token_reduction`.
        plan: from a request to a plan.
        place: where it reduces.
        summary: what it does, in one sentence.
        source: paper and program.
        default_keep: what `keep=None` means, in words.
        default_layer: the layer that `layer=None` means, for methods that have one.
    """

    name: str
    plan: Callable[[MethodRequest], MethodPlan]
    place: str
    summary: str
    source: str
    default_keep: str
    default_layer: int | None = field(default=None)


#: method -> the module whose `METHODS` holds it.
_MODULES: dict[str, str] = {}


def list_method_costs() -> tuple[str, ...]:
    """Name the methods the cost model can price."""
    return tuple(_MODULES)


def get_method_cost(name: str) -> MethodCost:
    """Return the cost of the method called `name`.

    Raises:
        UnknownMethodError: there is no such method.
    """
    module = _MODULES.get(name)
    if module is None:
        raise UnknownMethodError(name, list_method_costs())
    methods: dict[str, MethodCost] = import_module(module).METHODS
    return methods[name]
