"""Estimates of the measured configuration: same model, token counts, method and plan."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from costmodel.evaluate import Context, Evaluation
from costmodel.methods import get_method
from costmodel.quantities import STAGES
from costmodel.request import Request
from costmodel.roofline import StageCost
from costmodel.scenario import scenario_of
from hardware_specs.errors import InvalidInputError, VlmRooflineError
from profiling.reconciling.gap import PlannedStage
from profiling.records.model_names import model_of
from profiling.subject.plans import IDEAL_PLAN, MODE_PLANS, TOWER_PLAN

if TYPE_CHECKING:
    from pathlib import Path

    from costmodel.calibration import Calibration
    from costmodel.memory import MemoryCost
    from costmodel.quantities import OpCost
    from costmodel.roofline import Roofline
    from costmodel.scenario import Scenario
    from hardware_specs import HardwareSpec
    from profiling.records.measurement import Measurement

LANGUAGE_STAGES = ("prefill", "decode")
#: Where a method's own work happens inside another stage's marks.
ENCLOSING_STAGE = {"llm-layer": "prefill", "vision-layers": "vision", "before-vision": "vision"}


@dataclass(frozen=True)
class Prediction:
    """Everything the cost model says of one measured configuration.

    Attributes:
        stages: every stage priced three ways.
        memory: footprint and timeline of the plan that ran.
        plans: the execution plan of every stage.
        encloses_method: the stage inside whose marks the method works; None where it stands apart
            or there is no method.
        visual_tokens: visual tokens per sample entering the language model.
        cache_lengths: keys per layer after the prefill.
        keep: what the method was priced with.
        warnings: what a reader should know.
    """

    stages: dict[str, PlannedStage]
    memory: MemoryCost
    plans: dict[str, str]
    encloses_method: str | None
    visual_tokens: int
    cache_lengths: tuple[int, ...]
    keep: int | float | None
    warnings: tuple[str, ...]
    _ops: dict[str, tuple[list[OpCost], Roofline]]
    _ideal_ops: dict[str, tuple[list[OpCost], Roofline]]

    def ops(self, stage: str, *, ideal: bool = False) -> tuple[list[OpCost], Roofline]:
        """Return a stage's ops and what prices them, of the plan that ran or of the ideal one."""
        return (self._ideal_ops if ideal else self._ops)[stage]


class Predictor:
    """Prices measured configurations on one device, each distinct one once.

    Args:
        hardware: the device.
        calibration: its calibration, or None.
    """

    def __init__(self, hardware: HardwareSpec, calibration: Calibration | None) -> None:
        self.hardware = hardware
        self.calibration = calibration
        self._known: dict[Any, Prediction] = {}

    def predict(self, record: Measurement) -> Prediction:
        """Return the prediction for a measurement.

        Raises:
            VlmRooflineError: the model, dtype or method cannot be priced; names the measurement.
        """
        tokens = record.tokens
        foreign = record.boundary is not None
        key = (record.configuration, tokens.visual_in, tokens.visual_llm, foreign)
        found = self._known.get(key)
        if found is None:
            try:
                found = self._known[key] = self._predict(record)
            except VlmRooflineError as error:
                raise InvalidInputError(
                    f"{record.configuration.key} cannot be priced: {error}"
                ) from error
        return found

    def _predict(self, record: Measurement) -> Prediction:
        configuration, tokens = record.configuration, record.tokens
        model = model_of(configuration.model, record.model_config)
        warnings: list[str] = []
        method = None if configuration.method == "none" else configuration.method
        asked = configuration.visual_tokens
        given = asked
        if method is not None:
            # With a method the count is what it keeps; what it starts from was seen while running.
            given = tokens.visual_in
        elif asked is None:
            given = tokens.visual_llm
        images, sizes = configuration.images, configuration.image_sizes
        if (
            images is None
            and not sizes
            and configuration.frames is None
            and model.geometry.among_others is not None
        ):
            # What the tower saw says whether a bare count was one image.
            images = 1 if tokens.crops == model.default_crops else None
        request = Request(
            model,
            self.hardware,
            visual_tokens=given,
            images=images,
            image_size=sizes[0] if len(sizes) == 1 else sizes or None,
            frames=configuration.frames,
            text_tokens=configuration.text_tokens,
            batch_size=configuration.batch_size,
            output_tokens=configuration.output_tokens,
            precision=configuration.dtype,
            method=method,
            calibration=self.calibration,
            attention="eager" if configuration.attention == "eager" else "flash",
            tp=configuration.tp,
        )
        scenario = scenario_of(request, model, warnings)
        keep = None
        if method is not None:
            keep = configuration.keep if configuration.keep is not None else asked
            keep = _settled_keep(replace(request, keep=keep), scenario, tokens.visual_llm)
        language = MODE_PLANS[configuration.mode]
        # Another tool's engine runs the tower as it runs the rest.
        tower = TOWER_PLAN if record.boundary is None else language
        return _assemble(replace(request, keep=keep), language, tower, scenario, warnings)


def _settled_keep(request: Request, scenario: Scenario, seen: int | None) -> int | float | None:
    """Return the keep whose schedule has the token count that an adaptive method came to."""
    method = get_method(str(request.method))
    if request.keep is not None or method.given_keep is not None:
        return request.keep
    if seen is None or not method.info.adaptive:
        return None
    asked = replace(request, execution=TOWER_PLAN, calibration=None)
    best: tuple[int, int] | None = None
    for count in range(1, int(scenario.visual_tokens) + 1):
        try:
            context = Context(replace(asked, keep=count))
            entering = int(context.method_plan(scenario).llm_spans[0].tokens)
        except InvalidInputError:
            continue
        if best is None or abs(entering - seen) < best[0]:
            best = abs(entering - seen), count
        if best[0] == 0:
            break
    return None if best is None else best[1]


def _assemble(
    request: Request, language: str, vision: str, scenario: Scenario, warnings: list[str]
) -> Prediction:
    """Price a request under the plans that ran, the decoder's and the tower's, and ideally."""

    def evaluated(
        execution: str, calibration: Calibration | str | Path | None
    ) -> tuple[Context, Evaluation]:
        context = Context(replace(request, execution=execution, calibration=calibration))
        return context, context.evaluate(scenario, vector=False)

    ideal_context, ideal = evaluated(IDEAL_PLAN, None)
    _, fused = evaluated(IDEAL_PLAN, request.calibration)
    priced = {plan: evaluated(plan, request.calibration) for plan in {vision, language}}
    tower_context, tower = priced[vision]
    language_context, ran = priced[language]
    plans = {stage: language if stage in LANGUAGE_STAGES else vision for stage in STAGES}
    stages = {
        stage: PlannedStage(
            ideal.stages[stage],
            fused.stages[stage],
            (ran if stage in LANGUAGE_STAGES else tower).stages[stage],
        )
        for stage in STAGES
    }
    text = scenario.text_tokens
    spans = ran.plan.llm_spans
    place = None if request.method is None else get_method(str(request.method)).place
    ran_ops = language_context.stage_ops(scenario, ran.plan)
    tower_ops = tower_context.stage_ops(scenario, tower.plan)
    ideal_ops = ideal_context.stage_ops(scenario, ideal.plan)
    return Prediction(
        stages=stages,
        memory=ran.memory,
        plans=plans,
        encloses_method=ENCLOSING_STAGE.get(place or ""),
        visual_tokens=int(spans[0].tokens),
        cache_lengths=tuple(int(text + span.tokens) for span in spans for _ in range(span.layers)),
        keep=request.keep,
        warnings=tuple(warnings),
        _ops={
            stage: (ran_ops[stage], language_context.roofline)
            if stage in LANGUAGE_STAGES
            else (tower_ops[stage], tower_context.roofline)
            for stage in STAGES
        },
        _ideal_ops={stage: (ideal_ops[stage], ideal_context.roofline) for stage in STAGES},
    )


def added(stages: list[StageCost]) -> StageCost:
    """Return stages run one after the other as one cost.

    >>> added([StageCost(flops=1), StageCost(flops=2)]).flops
    3
    """
    total = StageCost()
    for stage in stages:
        total = total + stage
    return total
