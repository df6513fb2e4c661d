"""The registry of method costs: names to plans, each module imported when its method is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from costmodel.methods.requirements import check_fits
from costmodel.schedule import LayerSpan
from hardware_specs.errors import UnknownMethodError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from costmodel.models import ModelConfig
    from costmodel.precision import Precision
    from costmodel.quantities import Num, OpCost


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
        keep: a count (int, or an array of counts over scenarios), a ratio (float in (0, 1]), or
            None for the method's default.
        layer: the language-model layer of methods that have one, or None for their default.
        vision_layers: layers of the tower that run.
    """

    model: ModelConfig
    precision: Precision
    visual_tokens: Num
    projected_tokens: Num
    crops: Num
    text_tokens: Num
    batch_size: Num
    keep: Any
    layer: int | None
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
        schedule: from a checked request to a plan.
        place: where it reduces, as in `token_reduction`: `after-vision`, `after-projector`,
            `llm-layer` or `vision-layers`.
        summary: what it does, in one sentence.
        formula: tokens left and the method's own FLOPs, in plain text.
        complexity: the same as an order of growth.
        source: paper and program.
        default_keep: what `keep=None` means, in words.
        needs: what it needs of a model, in words.
        published: settings that its papers report.
        takes_layer: whether `layer` may be given.
        default_layer: the layer that `layer=None` means, for methods that have one.
        by_crop: whether it takes crops one by one although it acts after the projector.
        needs_class_token: whether it looks at the vision tower's class token.
        samples: whether it draws samples, so that asking for all tokens still runs it.
        counts: mean token counts that a paper reports for an adaptive method, by data set.
        program_flops: counted FLOPs of the authors' program, where it computes more than needed.
    """

    name: str
    schedule: Callable[[MethodRequest], MethodPlan]
    place: str
    summary: str
    formula: str
    complexity: str
    source: str
    default_keep: str
    needs: str = "nothing beside the tokens"
    published: tuple[str, ...] = ()
    takes_layer: bool = False
    default_layer: int | None = None
    by_crop: bool = False
    needs_class_token: bool = False
    samples: bool = False
    counts: Mapping[str, int] = field(default_factory=dict)
    program_flops: Callable[[MethodRequest], Num] | None = None

    @property
    def adaptive(self) -> bool:
        """Whether the data decide how many tokens are left, so that a cost is an expected one."""
        return bool(self.counts) or self.samples

    def plan(self, request: MethodRequest) -> MethodPlan:
        """Return the token schedule and the own ops of a request.

        `keep=1.0` leaves the model untouched, as `reduce_tokens` does (ATS, which draws samples all the
        same, apart): no schedule, no own cost.

        Raises:
            InvalidInputError: a keep or layer the method does not take.
            UnsupportedError: a model the method does not fit; says why.
        """
        check_fits(self, request)
        if isinstance(request.keep, float) and request.keep == 1.0 and not self.samples:
            span = LayerSpan(request.model.text.num_layers, request.visual_tokens)
            return MethodPlan(
                (span,), request.projected_tokens, notes={"method": "keep=1.0: untouched"}
            )
        return self.schedule(request)


#: method -> the module whose `METHODS` holds it.
_MODULES: dict[str, str] = {
    "prumerge": "costmodel.methods.prumerge",
    "prumerge+": "costmodel.methods.prumerge",
    "divprune": "costmodel.methods.divprune",
    "fastv": "costmodel.methods.fastv",
    "vtw": "costmodel.methods.vtw",
    "fitprune": "costmodel.methods.fitprune",
    "tome": "costmodel.methods.tome",
    "ats": "costmodel.methods.ats",
    "evit": "costmodel.methods.evit",
    "crossget": "costmodel.methods.crossget",
    "sequential": "costmodel.methods.sampling",
    "spatial": "costmodel.methods.sampling",
    "m3": "costmodel.methods.m3",
}


def list_method_costs() -> tuple[str, ...]:
    """Name the methods the cost model can price."""
    return tuple(_MODULES)


def get_method_cost(name: str) -> MethodCost:
    """Return the cost of the method called `name`.

    Raises:
        UnknownMethodError: there is no such method.

    >>> get_method_cost("fastv").default_layer
    2
    """
    module = _MODULES.get(name)
    if module is None:
        raise UnknownMethodError(name, list_method_costs())
    methods: dict[str, MethodCost] = import_module(module).METHODS
    return methods[name]
