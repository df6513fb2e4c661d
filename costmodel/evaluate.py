"""The one path from a scenario to its costs, for a single estimate and for a million alike.

A `Context` holds what does not vary inside one call (model, device, precision, plan, method); the
numbers that do (tokens, batch, output) are Python integers for one estimate and numpy arrays for a
sweep. The formulas are the same.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from costmodel.memory import (
    CUBLAS_WORKSPACE_BYTES,
    CUBLAS_WORKSPACE_HOPPER_BYTES,
    Footprint,
    MemoryCost,
    fullest,
    memory_cost,
)
from costmodel.methods import MethodPlan, chosen_method
from costmodel.methods.bare_schedule import bare_plan
from costmodel.parallel.sharding import (
    pipeline_stage,
    rank_model,
    stages_of,
    tower_alone,
    without_tower,
)
from costmodel.plans import Plan, get_plan
from costmodel.precision.resolving import resolve_precision
from costmodel.prefix import continued, prefix_of
from costmodel.program import Program
from costmodel.quantities import REQUEST, STAGES
from costmodel.request import AUTO, OUR_DEFAULTS, names_of
from costmodel.roofline import Roofline, StageCost, waiting
from costmodel.schedule import LayerSpan, check_layers, cut_spans
from hardware_specs.errors import InvalidInputError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from costmodel.calibration import Calibration
    from costmodel.models.geometry import Seen
    from costmodel.precision import Precision
    from costmodel.prefix import Prefix
    from costmodel.quantities import Num, OpCost
    from costmodel.request import Request
    from costmodel.scenario import Scenario
    from hardware_specs import HardwareSpec

VISION, DECODE = STAGES[0], STAGES[-1]
_FIXED = names_of("subject", "setting")


class Evaluation(NamedTuple):
    """The costs of a scenario."""

    stages: dict[str, StageCost]
    memory: MemoryCost
    plan: MethodPlan


class Context:
    """What stays fixed while the numbers vary.

    Args:
        request: the call; its numbers and its picture are not looked at.

    Attributes:
        inputs: the fixed arguments as resolved.
        warnings: what the checkpoint's precision has to say on this device, and which device a short
            name was taken for.
        precision_origin: where the precision comes from.

    Raises:
        VlmRooflineError: a name that nothing bears, or a device without the arithmetic that the
            precision needs.
    """

    def __init__(self, request: Request) -> None:
        from costmodel.models import load_model
        from hardware_specs import get_hardware

        self.model = model = load_model(request.model)
        self.hardware = hardware = get_hardware(request.hardware)
        resolved = resolve_precision(request.precision, model, hardware)
        self.precision, self.warnings, self.precision_origin = resolved
        if hardware.alias_note is not None:
            self.warnings = (*self.warnings, hardware.alias_note)
        precision = self.precision
        self.plan = get_plan(request.execution)
        self.calibration = _calibration(request.calibration, hardware, self.precision)
        self.attention = request.attention or OUR_DEFAULTS["attention"]
        self.logits = request.logits
        self.margin_bytes = request.memory_margin_bytes
        self.capacity_bytes = hardware.usable_memory_bytes
        self.vision_layers = request.vision_layers
        self.method, self.keep, self.layer = chosen_method(
            request.method, request.keep, request.layer
        )
        schedule = request.tokens_per_layer
        self.tokens_per_layer = None if schedule is None else tuple(schedule)
        if self.method is not None and self.tokens_per_layer is not None:
            raise InvalidInputError(
                f"{self.method.name} makes its own schedule; give method or tokens_per_layer, not both"
            )
        if self.method is not None and model.vision is None:
            raise InvalidInputError(
                f"method {self.method.name!r} reduces visual tokens, but {model.name} has no "
                "vision tower; choose a multimodal model"
            )
        self.parallel = parallel = request.parallel
        self.rank_model = rank_model(
            model,
            parallel.tp,
            tower=request.tower == "sharded",
            by_sequence=request.norms == "sequence",
        )
        self.roofline = Roofline(
            hardware, self.calibration, self.plan, request.host_s, request.power_limit_w, parallel
        )
        self.request_s = request.request_s
        for numerics in precision.every:
            self.roofline.peak(numerics.linear_dtype)
            self.roofline.peak(numerics.attention_dtype)
        self.tower_layers = (
            0 if model.vision is None else model.vision.executed_layers(self.vision_layers)
        )
        self.stages = stages_of(parallel, model)
        self.program = Program(
            self.rank_model,
            precision,
            self.plan,
            attention=self.attention,
            cuts=[first for first, _ in self.stages[1:]],
            handed=parallel.tp if parallel.apart else 0,
        )
        held = [
            self.rank_model if parallel.pp == 1 else pipeline_stage(self.rank_model, *layers)
            for layers in self.stages
        ]
        if parallel.apart:
            if model.vision is None:
                raise InvalidInputError(
                    f"tower='apart' gives the vision tower a device, and {model.name} has none"
                )
            held = [*map(without_tower, held), tower_alone(model)]
        self.footprints = [
            Footprint(
                each,
                precision,
                self.plan,
                attention=self.attention,
                logits=self.logits,
                workspace_bytes=_workspace_bytes(hardware, self.plan),
            )
            for each in held
        ]
        self._vision_cache: dict[Any, StageCost] = {}
        self.inputs = request.inputs(_FIXED) | {
            "model": model.name,
            "hardware": hardware.id,
            "precision": precision.name,
            "execution": self.plan.name,
            "method": "none" if self.method is None else self.method.name,
            "keep": self.keep,
            "layer": self.layer,
            "calibration": None if self.calibration is None else str(self.calibration.name),
            "host_s": None if self.roofline.host is None else self.roofline.host.per_kernel_s,
            "power_limit_w": None if self.roofline.power is None else self.roofline.power.limit_w,
            "attention": self.attention,
            **({} if self.method is None else self.method.changes),
        }

    def method_plan(self, scenario: Scenario) -> MethodPlan:
        """Return the token schedule of a scenario.

        Raises:
            InvalidInputError: a keep or layer that the method does not take, or no token left.
            UnsupportedError: a model that the method does not fit.
        """
        text_layers = self.model.text.num_layers
        name = None
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
            plan = MethodPlan((span,), scenario.projected_tokens)
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
                images=scenario.images,
                keep=self.keep,
                layer=self.layer,
                unit_tokens=scenario.unit_tokens,
                framed=scenario.framed,
                seen=scenario.seen,
                parts=scenario.parts,
            )
        prefix = prefix_of(scenario)
        if prefix is not None:
            plan = continued(plan, scenario, prefix, name)
        if name is None:
            return plan
        check_layers(plan.llm_spans, text_layers, "language model")
        if plan.vision_spans is not None:
            check_layers(plan.vision_spans, self.tower_layers, "vision tower")
        if self.plan.static_cache and any(
            _any(each.tokens != plan.llm_spans[0].tokens) for each in plan.llm_spans
        ):
            raise UnsupportedError(
                f"{name} leaves layers of different lengths, and the plan {self.plan.name} has one "
                "static cache for all; take hf-eager or cuda-graph"
            )
        if _any(scenario.text_tokens + plan.llm_spans[-1].tokens == 0):
            raise InvalidInputError(
                f"{name} leaves no token of a prompt without text; give text_tokens, or keep more"
            )
        return plan

    def stage_ops(self, scenario: Scenario, plan: MethodPlan) -> dict[str, list[OpCost]]:
        """Return every stage's ops."""
        scenario = self._local(scenario)
        prefix = prefix_of(scenario)
        scenario = _encoded(scenario, prefix)
        return {
            VISION: self._vision_ops(scenario, plan),
            **self._prompt_ops(scenario, plan, prefix),
            DECODE: self._decode_ops(scenario, plan),
        }

    def _local(self, scenario: Scenario) -> Scenario:
        """Return what the fullest replica gets of a scenario."""
        if self.parallel.dp == 1:
            return scenario
        return scenario._replace(batch_size=self.parallel.local_batch(scenario.batch_size))

    def _prompt_ops(
        self, scenario: Scenario, plan: MethodPlan, prefix: Prefix | None
    ) -> dict[str, list[OpCost]]:
        """Return the ops of the stages between the vision tower and the first decode step."""
        program, b, text = self.program, scenario.batch_size, scenario.text_tokens
        spans = plan.llm_spans
        merged, embedded = spans[0].tokens, text
        if prefix is not None:
            embedded = prefix.fresh_text * (prefix.fresh_text > 0)
            merged = prefix.fresh(merged) - embedded
        bridge: list[OpCost] = []
        if self.model.vision is not None:
            bridge = program.projector(b, plan.projected_tokens, merged, embedded)
        every = self.logits == "all"
        return {
            "projector": bridge,
            "reduction": list(plan.ops),
            "prefill": program.prefill(b, text, spans, all_logits=every, prefix=prefix),
        }

    def _decode_ops(self, scenario: Scenario, plan: MethodPlan) -> list[OpCost]:
        """Return the ops of the decode steps; in arrays, rows without one multiply its cost by zero."""
        steps = scenario.output_tokens
        if not _any(steps):
            return []
        # Step i attends to the prompt, the i tokens before it and itself: the mean over all steps.
        before = scenario.text_tokens + 1 + (steps - 1) / 2
        return _steps(self.program, scenario.batch_size, plan, before, steps)

    def _vision_ops(self, scenario: Scenario, plan: MethodPlan) -> list[OpCost]:
        """Return the ops of the vision tower, where a scenario has an image that is to be encoded."""
        b, images = scenario.batch_size, scenario.batch_size * scenario.crops
        seen = _seen(scenario, plan)
        tower = self.model.vision
        if tower is None or not _any(images):
            return []
        if seen is not None:
            return self.program.native_vision(b, self.tower_layers, seen)
        spans = plan.vision_spans or (LayerSpan(self.tower_layers, tower.tokens),)
        return self.program.vision(images, spans, plan.patches)

    def evaluate(
        self, scenario: Scenario, *, vector: bool, repeat: int = 1, times_only: bool = False
    ) -> Evaluation:
        """Price a scenario.

        Args:
            scenario: the numbers.
            vector: whether they are arrays.
            repeat: length of the blocks of rows that differ in their decode steps alone, which share all
                stages before; 1 where nothing is known of them.
            times_only: whether stages shall have nothing but `time_s` and `kernels`; the memory is whole,
                apart from `activation_bytes_written`.
        """
        price = self.roofline.times if times_only else self.roofline.stage
        scenario = self._local(scenario)
        first = scenario if repeat == 1 else _mapped(scenario, lambda column: column[::repeat])
        prefix = prefix_of(first)
        plan = self.method_plan(first)
        first = _encoded(first, prefix)
        stages = {VISION: self._vision_stage(first, plan, vector, price)}
        for stage, ops in self._prompt_ops(first, plan, prefix).items():
            stages[stage] = price(ops, vector)
        if repeat == 1:
            scenario = first
        else:
            each = partial(_repeated, times=repeat)
            stages = {stage: cost.mapped(each) for stage, cost in stages.items()}
            plan = _mapped(plan._replace(ops=()), each)
            prefix = prefix_of(scenario)
            scenario = _encoded(scenario, prefix)
        stages[DECODE] = price(self._decode_ops(scenario, plan), vector)
        if self.request_s:
            stages = {REQUEST: waiting(self.request_s), **stages}
        memory = self._memory(scenario, plan, prefix, stages["prefill"], vector)
        return Evaluation(stages, memory, plan)

    def _vision_stage(
        self,
        scenario: Scenario,
        plan: MethodPlan,
        vector: bool,
        price: Callable[[list[OpCost], bool], StageCost],
    ) -> StageCost:
        """The tower sees only batch x crops: price each distinct count once."""
        if self.model.vision is None:
            return StageCost()
        b, seen, spans = scenario.batch_size, _seen(scenario, plan), plan.vision_spans
        images = b * scenario.crops
        if not vector:
            key = (images, spans, plan.patches, b if seen else 0, seen)
            found = self._vision_cache.get(key)
            if found is None:
                ops = self._vision_ops(scenario, plan)
                found = self._vision_cache[key] = price(ops, False)
                if len(self._vision_cache) > 1024:
                    self._vision_cache.clear()
            return found
        by_row = spans is not None and any(isinstance(span.tokens, np.ndarray) for span in spans)
        if by_row or seen is not None:
            cost = price(self._vision_ops(scenario, plan), True)
            return cost.mapped(lambda column: np.where(images > 0, column, 0))
        distinct, where = np.unique(images, return_inverse=True)
        each = scenario._replace(batch_size=1, crops=distinct)
        cost = price(self._vision_ops(each, plan), True)
        some = distinct > 0
        return cost.mapped(lambda column: np.where(some, column, 0)[where])

    def _memory(
        self,
        scenario: Scenario,
        plan: MethodPlan,
        prefix: Prefix | None,
        prefill: StageCost,
        vector: bool,
    ) -> MemoryCost:
        maximum: Any = np.maximum if vector else max
        ranks = []
        spans = plan.llm_spans
        parts = [spans] if len(self.stages) == 1 else [cut_spans(spans, *s) for s in self.stages]
        if self.parallel.apart:
            parts.append((spans[0]._replace(layers=0),))
        for footprint, part in zip(self.footprints, parts, strict=True):
            phases = footprint.timeline(
                scenario.batch_size,
                scenario.crops,
                plan.projected_tokens,
                scenario.text_tokens,
                part,
                scenario.output_tokens,
                maximum,
                _seen(scenario, plan),
                prefix,
            )
            ranks.append(
                memory_cost(
                    phases,
                    self.capacity_bytes,
                    prefill.activation_write_bytes,
                    maximum,
                    self.margin_bytes,
                )
            )
        return ranks[0] if len(ranks) == 1 else fullest(ranks)


def _calibration(
    calibration: Calibration | str | Path | None, hardware: HardwareSpec, precision: Precision
) -> Calibration | None:
    """Return what times rest on; None is the ideal roofline."""
    if calibration is None:
        return None
    from costmodel.calibration import Calibration, best_calibration

    if calibration == AUTO:
        needed = {("gemm", each.label) for each in precision.every}
        needed |= {("attention_prefill", each.attention_dtype) for each in precision.every}
        return best_calibration(hardware, needed)
    if not isinstance(calibration, Calibration):
        calibration = Calibration.load(calibration, hardware)
    calibration.check_hardware(hardware)
    return calibration


def _encoded(scenario: Scenario, prefix: Prefix | None) -> Scenario:
    """Leave out of a scenario the images whose tokens the cache holds: the tower does not see them."""
    if prefix is None:
        return scenario
    some = 1 - prefix.images
    seen = None if scenario.seen is None else scenario.seen.times(some)
    return scenario._replace(crops=scenario.crops * some, seen=seen)


def _mapped(held: Any, change: Callable[[Any], Any]) -> Any:
    """Return a scenario or a plan with each of its arrays changed."""
    if isinstance(held, np.ndarray):
        return change(held)
    if not isinstance(held, tuple):
        return held
    entries = [_mapped(entry, change) for entry in held]
    return type(held)(*entries) if hasattr(held, "_fields") else tuple(entries)


def _repeated(column: Any, times: int) -> Any:
    """Return each entry of an array several times in a row; a number holds for all rows already."""
    return np.repeat(column, times) if isinstance(column, np.ndarray) else column


def _any(count: Num) -> bool:
    """Whether a count is positive, in any row."""
    return bool(count.any() if isinstance(count, np.ndarray) else count)


def _workspace_bytes(hardware: HardwareSpec, plan: Plan) -> int:
    """What PyTorch's cuBLAS workspace takes under the plans that run PyTorch."""
    if not plan.runs_pytorch or hardware.vendor != "NVIDIA":
        return 0
    hopper = str(hardware.compute_capability).startswith("9.")
    return CUBLAS_WORKSPACE_HOPPER_BYTES if hopper else CUBLAS_WORKSPACE_BYTES


def _seen(scenario: Scenario, plan: MethodPlan) -> Seen | None:
    """What a tower of native resolution sees of a sample, under a method that leaves some of it out."""
    return scenario.seen if plan.seen is None else plan.seen


def _steps(program: Program, b: Num, plan: MethodPlan, before: Num, steps: Num) -> list[OpCost]:
    """Return the ops of all decode steps, a method's own among them."""
    spans = plan.decode_spans or plan.llm_spans
    ops = program.decode(b, spans, before, steps)
    return ops if plan.step_ops is None else [*ops, *plan.step_ops(b, spans, before, steps)]
