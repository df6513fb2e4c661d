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
    MemoryCost,
    memory_cost,
    timeline,
)
from costmodel.methods import MethodPlan, chosen_method
from costmodel.methods.bare_schedule import bare_plan
from costmodel.plans import check_plan
from costmodel.plans.language import decode_ops, prefill_ops
from costmodel.plans.vision import executed_layers, projector_ops, vision_ops
from costmodel.roofline import Roofline, StageCost
from costmodel.schedule import LayerSpan, check_layers
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from costmodel.calibration import Calibration
    from costmodel.methods import Method
    from costmodel.models import ModelConfig
    from costmodel.precision import Precision
    from costmodel.quantities import Num, OpCost
    from hardware_specs import HardwareSpec

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
        check_plan(execution)
        _choice("attention", attention, ATTENTION)
        _choice("logits", logits, LOGITS)
        _choice("vision_layers", vision_layers, VISION_LAYERS)
        self.model = model
        self.hardware = hardware
        self.precision = precision
        self.execution = execution
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
        self.roofline = Roofline(hardware, calibration, execution)
        modules = (precision.vision, precision.projector, precision.text, precision.lm_head)
        for numerics in set(modules):
            self.roofline.peak(numerics.linear_dtype)
            self.roofline.peak(numerics.attention_dtype)
        self.tower_layers = (
            executed_layers(model.vision, vision_layers) if model.vision is not None else 0
        )
        self.workspace_bytes = _workspace_bytes(hardware, execution)
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
        model, b = self.model, scenario.batch_size
        ops: dict[str, list[OpCost]] = {
            "vision": [],
            "projector": [],
            "reduction": list(plan.ops),
            "prefill": self._prefill_ops(scenario, plan),
            "decode": [],
        }
        if model.vision is not None and model.projector is not None:
            images = b * scenario.crops
            if np.any(images):
                ops["vision"] = self._vision_ops(images, plan)
            ops["projector"] = self._projector_ops(scenario, plan)
        if np.any(scenario.output_tokens):
            ops["decode"] = self._decode_ops(scenario, plan)
        return ops

    def _vision_ops(self, images: Num, plan: MethodPlan) -> list[OpCost]:
        vision = self.model.vision
        assert vision is not None  # noqa: S101 - callers checked; narrows the type
        spans = plan.vision_spans or (LayerSpan(self.tower_layers, vision.tokens),)
        return vision_ops(
            vision, self.precision.vision, images, spans, execution=self.execution,
            attention=self.attention,
        )  # fmt: skip

    def _projector_ops(self, scenario: Scenario, plan: MethodPlan) -> list[OpCost]:
        projector = self.model.projector
        assert projector is not None  # noqa: S101 - callers checked; narrows the type
        return projector_ops(
            projector,
            self.model.text,
            self.precision,
            scenario.batch_size,
            plan.projected_tokens,
            plan.llm_spans[0].tokens,
            scenario.text_tokens,
        )

    def _prefill_ops(self, scenario: Scenario, plan: MethodPlan) -> list[OpCost]:
        return prefill_ops(
            self.model.text,
            self.precision,
            scenario.batch_size,
            scenario.text_tokens,
            plan.llm_spans,
            execution=self.execution,
            attention=self.attention,
            logits=self.logits,
            embeds_text=self.model.vision is None,
        )

    def _decode_ops(self, scenario: Scenario, plan: MethodPlan) -> list[OpCost]:
        steps = scenario.output_tokens
        # Step i attends to the prompt, the i tokens before it and itself: the mean over all steps.
        mean = scenario.text_tokens + 1 + (steps - 1) / 2
        context = tuple((span.layers, mean + span.tokens) for span in plan.llm_spans)
        return decode_ops(
            self.model.text, self.precision, scenario.batch_size, context, steps,
            execution=self.execution, attention=self.attention,
        )  # fmt: skip

    def evaluate(self, scenario: Scenario, *, vector: bool) -> Evaluation:
        """Price a scenario.

        Args:
            scenario: the numbers.
            vector: whether they are arrays.
        """
        plan = self.method_plan(scenario)
        price = self.roofline.stage
        stages = {
            "vision": self._vision_stage(scenario, plan, vector),
            "projector": StageCost(),
            "reduction": price(plan.ops, vector) if plan.ops else StageCost(),
            "prefill": price(self._prefill_ops(scenario, plan), vector),
            "decode": StageCost(),
        }
        if self.model.projector is not None:
            stages["projector"] = price(self._projector_ops(scenario, plan), vector)
        # In arrays, rows without a decode step multiply its cost by zero.
        if np.any(scenario.output_tokens) if vector else scenario.output_tokens:
            stages["decode"] = price(self._decode_ops(scenario, plan), vector)
        return Evaluation(stages, self._memory(scenario, plan, stages, vector), plan)

    def _vision_stage(self, scenario: Scenario, plan: MethodPlan, vector: bool) -> StageCost:
        """The tower sees only batch x crops: price each distinct count once."""
        if self.model.vision is None:
            return StageCost()
        images = scenario.batch_size * scenario.crops
        spans = plan.vision_spans
        if not vector:
            key = (images, spans)
            found = self._vision_cache.get(key)
            if found is None:
                ops = self._vision_ops(images, plan) if images else []
                found = self._vision_cache[key] = self.roofline.stage(ops, False)
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
        phases = timeline(
            self.model,
            self.precision,
            scenario.batch_size,
            scenario.crops,
            plan.projected_tokens,
            scenario.text_tokens,
            plan.llm_spans,
            scenario.output_tokens,
            execution=self.execution,
            attention=self.attention,
            logits=self.logits,
            workspace_bytes=self.workspace_bytes,
            maximum=maximum,
        )
        return memory_cost(
            phases,
            self.hardware.usable_memory_bytes,
            stages["prefill"].activation_write_bytes,
            maximum,
        )


def _workspace_bytes(hardware: HardwareSpec, execution: str) -> int:
    """What PyTorch's cuBLAS workspace takes under the plans that run PyTorch."""
    if execution == "fused" or hardware.vendor != "NVIDIA":
        return 0
    hopper = str(hardware.compute_capability).startswith("9.")
    return CUBLAS_WORKSPACE_HOPPER_BYTES if hopper else CUBLAS_WORKSPACE_BYTES
