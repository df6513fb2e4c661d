"""A trace beside the estimate of its model, stage by stage: the gap waterfall of `reconcile`.

What was measured of a stage is its stretch of the time line: its work and the gaps before it, over the
passes in the trace. Batch, tokens and attention are read from the trace; what is asked for goes before.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from costmodel.kinds import check_count
from costmodel.models import config_dict, load_model
from costmodel.quantities import STAGES
from hardware_specs.errors import InvalidInputError
from profiling.explaining.calls import dtype_of
from profiling.explaining.model_stages import AgainstModel
from profiling.reconciling.gap import PARTS
from profiling.reconciling.joining import Predictor
from profiling.reconciling.rows import stage_view
from profiling.records.measurement import Configuration, Measurement, Sampling, TokenCounts
from profiling.records.model_names import public_name

if TYPE_CHECKING:
    from costmodel.models import ModelConfig
    from profiling.explaining.explanation import Explanation
    from profiling.explaining.layers import Run
    from profiling.reconciling.joining import Prediction

#: Tokens of a prompt's text where nothing else is known of them.
_LEAST_TEXT = 1


def against_model(
    found: Explanation,
    model: Any,
    *,
    visual_tokens: int | None,
    image_size: Any,
    method: str | None,
    keep: int | float | None,
) -> AgainstModel:
    """Return a trace's stages beside the estimate of a model.

    Args:
        found: the trace.
        model: as `estimate` takes it.
        visual_tokens: as asked for; None to find out.
        image_size: of its images, instead.
        method: the method that ran.
        keep: what it was given.

    Raises:
        InvalidInputError: the device or the tokens of the trace are not known, or the model.
    """
    if found.hardware is None:
        raise InvalidInputError("an estimate needs the device: name it with hardware= (--hardware)")
    config = load_model(model)
    name = public_name(config.name)
    runs = _runs_of(found, "prefill")
    # A tower alone has its stage as well; of a language model nothing is asked then.
    if not runs and config.vision is not None:
        runs = _runs_of(found, "vision")
    if not runs:
        raise InvalidInputError(
            f"the trace {found.source} shows neither a prefill nor a tower with its sizes, so nothing can "
            f"be laid beside {name}"
        )
    first = runs[0]
    size = _size(image_size)
    plain = _visual_tokens(config, found, visual_tokens, size)
    batch = first.batch or 1
    tokens = first.tokens or 0
    if "prefill" not in found.stages:
        tokens = plain + _LEAST_TEXT
    passes = max(1, round(sum(run.count for run in runs) / first.whole))
    decoded = [run for run in found._runs if found._placed[run.begin] == "decode"]
    steps = round(sum(run.count for run in decoded) / (decoded[0].whole * passes)) if decoded else 0
    reduces = method is not None and method != "none"
    dtypes = Counter(dtype_of(call.ops[-1])[0] for call in found._calls if call.product is not None)
    written = any(
        call.scores and stage == "prefill"
        for call, stage in zip(found._calls, found._placed, strict=True)
    )
    predictor = Predictor(found.hardware, found.calibration)

    def predicted(entering: int) -> tuple[Configuration, Prediction]:
        """Lay the prompt out as so many visual tokens and the rest as text, and price it."""
        configuration = Configuration(
            model=name,
            dtype=next((name for name, _ in dtypes.most_common() if name), "fp16"),
            method=method or "none",
            keep=keep,
            visual_tokens=None if reduces else entering,
            text_tokens=max(_LEAST_TEXT, tokens - entering),
            batch_size=batch,
            output_tokens=steps,
            device="cpu" if found.on_cpu else "cuda",
            attention="eager" if written else "sdpa",
            image_sizes=() if size is None else (size,),
        )
        record = Measurement(
            configuration=configuration,
            status="ok",
            sampling=Sampling(timer="profiler"),
            tokens=TokenCounts(visual_in=plain or None, visual_llm=None if reduces else entering),
            model_config=config_dict(config),
        )
        return configuration, predictor.predict(record)

    entering = min(plain, max(tokens - _LEAST_TEXT, 0))
    configuration, prediction = predicted(entering)
    if reduces and prediction.visual_tokens != entering:
        # A method before the language model leaves fewer tokens; the rest of the prompt is text.
        entering = min(prediction.visual_tokens, max(tokens - _LEAST_TEXT, 0))
        configuration, prediction = predicted(entering)
    rows = []
    for stage in STAGES:
        measured = found.spans.get(stage, 0.0) / passes
        if not measured:
            continue
        gap = stage_view(prediction, stage).gap(measured)
        rows.append(
            {"stage": stage, "measured_s": measured, "device_s": found.stages.get(stage, 0.0) / passes,
             "ideal_s": gap.ideal_s, "predicted_s": gap.predicted_s,
             **{name: gap.parts[name] for name in PARTS}}
        )  # fmt: skip
    return AgainstModel(
        name,
        entering,
        configuration.text_tokens,
        batch,
        steps,
        passes,
        tuple(rows),
        tuple(_flags(config, name, first, found)),
    )


def _runs_of(found: Explanation, stage: str) -> list[Run]:
    return [run for run in found._runs if found._placed[run.begin] == stage and run.tokens]


def _size(image_size: Any) -> tuple[int, int] | None:
    if image_size is None:
        return None
    if isinstance(image_size, str):
        from costmodel.models.model import read_size

        image_size = read_size(image_size)
    if (
        not isinstance(image_size, (tuple, list))
        or len(image_size) != 2
        or not all(type(side) is int and side > 0 for side in image_size)
    ):
        raise InvalidInputError(f"image_size must be (height, width), not {image_size!r}")
    return image_size[0], image_size[1]


def _visual_tokens(
    config: ModelConfig, found: Explanation, asked: int | None, size: tuple[int, int] | None
) -> int:
    if asked is not None:
        return check_count("visual_tokens", asked, 0)
    if config.vision is None:
        return 0
    if size is None and "vision" not in found.stages:
        # No tower ran: the prompt is text.
        return 0
    return int(config.visual_input(image_size=size).tokens)


def _flags(config: ModelConfig, name: str, run: Run, found: Explanation) -> list[str]:
    """Return what tells that the trace is not of the model."""
    flags = []
    text = config.text
    theirs = (text.num_layers, text.hidden_size)
    if found._placed[run.begin] == "prefill" and (run.whole, run.width) != theirs:
        flags.append(
            f"the trace's language model has {run.whole} layers of {run.width}, {name} has "
            f"{theirs[0]} of {theirs[1]}"
        )
    towers = _runs_of(found, "vision")
    if towers and config.vision is not None and towers[0].width != config.vision.hidden_size:
        flags.append(
            f"the trace's tower is {towers[0].width} wide, that of {name} {config.vision.hidden_size}"
        )
    return flags
