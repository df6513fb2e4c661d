"""The one path from a scenario to its costs, for a single estimate and for a million alike.

A `Context` holds what does not vary inside one call (model, device, precision, plan, method); the
numbers that do (tokens, batch, output) are Python integers for one estimate and numpy arrays for a
sweep. The formulas are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from costmodel.memory import (
    CUBLAS_WORKSPACE_BYTES,
    CUBLAS_WORKSPACE_HOPPER_BYTES,
    Footprint,
    MemoryCost,
    memory_cost,
)
from costmodel.methods import MethodPlan, chosen_method
from costmodel.methods.bare_schedule import bare_plan
from costmodel.plans import Plan, get_plan
from costmodel.program import Program
from costmodel.quantities import STAGES
from costmodel.roofline import Roofline, StageCost
from costmodel.schedule import LayerSpan, check_layers
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from costmodel.calibration import Calibration
    from costmodel.methods import Method
    from costmodel.models import ModelConfig
    from costmodel.precision import Precision
    from costmodel.quantities import Num, OpCost
    from hardware_specs import HardwareSpec

VISION = STAGES[0]
ATTENTION = ("flash", "eager")
LOGITS = ("last", "all")
VISION_LAYERS = ("executed", "useful")


def _choice(name: str, given: object, known: tuple[str, ...]) -> None:
    if given not in known:
        raise InvalidInputError(f"{name}={given!r} is unknown; there is: {', '.join(known)}")


class Scenario(NamedTuple):
    """The numbers that vary: per sample but for the batch; integers, or arrays of one shape."""

    visual_tokens: Num
    projected_tokens: Num
    crops: Num
    text_tokens: Num
    batch_size: Num
    output_tokens: Num


class Evaluation(NamedTuple):
    """The costs of a scenario."""

    stages: dict[str, StageCost]
    memory: MemoryCost
    plan: MethodPlan


class Context:
    """What stays fixed while the numbers vary.

    Args:
        model: the model.
        hardware: the device.
        precision: the numerics of every module.
        method: a token-reduction method, by name or as `get_method` gives it, or None.
        keep: what the method keeps: a count, a ratio, or None for its own or its default.
        layer: the layer of methods that have one.
        tokens_per_layer: visual tokens of every language-model layer, in place of a method.
        execution: an execution plan.
        calibration: measured efficiencies, or None.
        attention: `flash` or `eager`.
        logits: `last` or `all`.
        vision_layers: `executed` or `useful`.

    Raises:
        InvalidInputError: an argument that names nothing.
        UnknownMethodError: an unknown method.
        MissingPeakError: the device lacks the arithmetic the precision needs.
    """

    def __init__(
        self,
        model: ModelConfig,
        hardware: HardwareSpec,
        precision: Precision,
        *,
        method: str | Method | None,
        keep: int | float | None,
        layer: int | None,
        tokens_per_layer: tuple[int, ...] | None = None,
        execution: str,
        calibration: Calibration | None,
        attention: str,
        logits: str,
        vision_layers: str,
    ) -> None:
        self.plan = get_plan(execution)
        _choice("attention", attention, ATTENTION)
        _choice("logits", logits, LOGITS)
        _choice("vision_layers", vision_layers, VISION_LAYERS)
        self.model = model
        self.hardware = hardware
        self.precision = precision
        self.calibration = calibration
        self.attention = attention
        self.logits = logits
        self.vision_layers = vision_layers
        self.method, self.keep, self.layer = chosen_method(method, keep, layer)
        self.tokens_per_layer = tokens_per_layer
        if self.method is not None and tokens_per_layer is not None:
            raise InvalidInputError(
                f"{self.method.name} makes its own schedule; give method or tokens_per_layer, not both"
            )
        if self.method is not None and model.vision is None:
            raise InvalidInputError(
                f"method {self.method.name!r} reduces visual tokens, but {model.name} has no "
                "vision tower; choose a multimodal model"
            )
        self.roofline = Roofline(hardware, calibration, self.plan)
        modules = (precision.vision, precision.projector, precision.text, precision.lm_head)
        for numerics in set(modules):
            self.roofline.peak(numerics.linear_dtype)
            self.roofline.peak(numerics.attention_dtype)
        self.tower_layers = (
            0 if model.vision is None else model.vision.executed_layers(vision_layers)
        )
        self.program = Program(model, precision, self.plan, attention=attention)
        self.footprint = Footprint(
            model,
            precision,
            self.plan,
            attention=attention,
            logits=logits,
            workspace_bytes=_workspace_bytes(hardware, self.plan),
        )
        self._vision_cache: dict[Any, StageCost] = {}

    def method_plan(self, scenario: Scenario) -> MethodPlan:
        """Return the token schedule of a scenario.

        Raises:
            InvalidInputError: a keep or layer that the method does not take, or no token left.
            UnsupportedError: a model that the method does not fit.
        """
        text_layers = self.model.text.num_layers
        if self.tokens_per_layer is not None:
            name = "tokens_per_layer"
            plan = bare_plan(
                self.tokens_per_layer,
                text_layers,
                scenario.visual_tokens,
                scenario.projected_tokens,
            )
        elif self.method is None:
            span = LayerSpan(text_layers, scenario.visual_tokens)
            return MethodPlan((span,), scenario.projected_tokens)
        else:
            name = self.method.name
            plan = self.method.plan(
                self.model,
                self.precision,
                scenario.visual_tokens,
                scenario.projected_tokens,
                scenario.crops,
                scenario.text_tokens,
                scenario.batch_size,
                self.tower_layers,
                keep=self.keep,
                layer=self.layer,
            )
        check_layers(plan.llm_spans, text_layers, "language model")
        if plan.vision_spans is not None:
            check_layers(plan.vision_spans, self.tower_layers, "vision tower")
        if np.any(scenario.text_tokens + plan.llm_spans[-1].tokens == 0):
            raise InvalidInputError(
                f"{name} leaves no token of a prompt without text; give text_tokens, or keep more"
            )
        return plan

    def stage_ops(self, scenario: Scenario, plan: MethodPlan) -> dict[str, list[OpCost]]:
        """Return every stage's ops."""
        return {stage: build() for stage, build in self._stages(scenario, plan).items()}

    def _stages(
        self, scenario: Scenario, plan: MethodPlan
    ) -> dict[str, Callable[[], list[OpCost]]]:
        """Return what builds the ops of each stage."""
        program, b, text = self.program, scenario.batch_size, scenario.text_tokens
        spans, steps = plan.llm_spans, scenario.output_tokens
        sees = self.model.vision is not None
        images = b * scenario.crops
        # Step i attends to the prompt, the i tokens before it and itself: the mean over all steps.
        before = text + 1 + (steps - 1) / 2
        return {
            "vision": lambda: self._vision_ops(images, plan) if sees and _any(images) else [],
            "projector": lambda: (
                program.projector(b, plan.projected_tokens, spans[0].tokens, text) if sees else []
            ),
            "reduction": lambda: list(plan.ops),
            "prefill": lambda: program.prefill(
                b, text, spans, all_logits=self.logits == "all"
            ),
            # In arrays, rows without a decode step multiply its cost by zero.
            "decode": lambda: program.decode(b, spans, before, steps) if _any(steps) else [],
        }  # fmt: skip

    def _vision_ops(self, images: Num, plan: MethodPlan) -> list[OpCost]:
        tower = self.model.vision
        assert tower is not None  # noqa: S101 - callers checked; narrows the type
        spans = plan.vision_spans or (LayerSpan(self.tower_layers, tower.tokens),)
        return self.program.vision(images, spans)

    def evaluate(self, scenario: Scenario, *, vector: bool) -> Evaluation:
        """Price a scenario.

        Args:
            scenario: the numbers.
            vector: whether they are arrays.
        """
        plan = self.method_plan(scenario)
        stages = {
            stage: self._vision_stage(build, scenario, plan, vector)
            if stage == VISION
            else self.roofline.stage(build(), vector)
            for stage, build in self._stages(scenario, plan).items()
        }
        return Evaluation(stages, self._memory(scenario, plan, stages, vector), plan)

    def _vision_stage(
        self,
        build: Callable[[], list[OpCost]],
        scenario: Scenario,
        plan: MethodPlan,
        vector: bool,
    ) -> StageCost:
        """The tower sees only batch x crops: price each distinct count once."""
        if self.model.vision is None:
            return StageCost()
        images = scenario.batch_size * scenario.crops
        spans = plan.vision_spans
        if not vector:
            key = (images, spans)
            found = self._vision_cache.get(key)
            if found is None:
                found = self._vision_cache[key] = self.roofline.stage(build(), False)
                if len(self._vision_cache) > 1024:
                    self._vision_cache.clear()
            return found
        if spans is not None and any(isinstance(span.tokens, np.ndarray) for span in spans):
            cost = self.roofline.stage(self._vision_ops(images, plan), True)
            return StageCost(*(np.where(images > 0, getattr(cost, n), 0) for n in cost.__slots__))
        distinct, where = np.unique(images, return_inverse=True)
        cost = self.roofline.stage(self._vision_ops(distinct, plan), True)
        some = distinct > 0
        return StageCost(*(np.where(some, getattr(cost, n), 0)[where] for n in cost.__slots__))

    def _memory(
        self, scenario: Scenario, plan: MethodPlan, stages: dict[str, StageCost], vector: bool
    ) -> MemoryCost:
        maximum: Any = np.maximum if vector else max
        phases = self.footprint.timeline(
            scenario.batch_size,
            scenario.crops,
            plan.projected_tokens,
            scenario.text_tokens,
            plan.llm_spans,
            scenario.output_tokens,
            maximum,
        )
        return memory_cost(
            phases,
            self.hardware.usable_memory_bytes,
            stages["prefill"].activation_write_bytes,
            maximum,
        )


def _any(count: Num) -> bool:
    """Whether a count is positive, in any row."""
    return bool(count.any() if isinstance(count, np.ndarray) else count)


def _workspace_bytes(hardware: HardwareSpec, plan: Plan) -> int:
    """What PyTorch's cuBLAS workspace takes under the plans that run PyTorch."""
    if not plan.runs_pytorch or hardware.vendor != "NVIDIA":
        return 0
    hopper = str(hardware.compute_capability).startswith("9.")
    return CUBLAS_WORKSPACE_HOPPER_BYTES if hopper else CUBLAS_WORKSPACE_BYTES
