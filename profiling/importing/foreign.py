"""What one row of a foreign file says of a run, and the record that it becomes.

A row becomes a record where it says, or its reader is told, the model, the arithmetic, the batch and the
prompt's length. Otherwise it is left out and named, and so is a row that is faster than its device can
be. Stages that the tool's clock did not hold are missing.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from costmodel.kinds import check_count
from costmodel.models.registry import ALIASES, list_models
from costmodel.precision import parse_precision
from hardware_specs.errors import UnknownHardwareError, VlmRooflineError
from profiling.records.measurement import (
    GENERATION,
    Configuration,
    Measurement,
    Sampling,
    StageSamples,
    TokenCounts,
)
from profiling.records.model_names import carried_config, model_of, public_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hardware_specs import HardwareSpec

#: What tools call the arithmetic -> labels of this project.
_DTYPES = {
    "float32": "fp32", "float16": "fp16", "half": "fp16", "bfloat16": "bf16", "fp8": "fp8",
    "int4 awq": "awq", "awq": "awq", "int4 gptq": "gptq", "gptq": "gptq", "nvfp4": "nvfp4",
    "fp16": "fp16", "bf16": "bf16", "fp32": "fp32",
}  # fmt: skip
#: Checkpoints whose architecture is that of a shipped model, by the last part of their names.
_SAME_ARCHITECTURE = {
    "vicuna-7b-v1.5": "llama-2-7b", "vicuna-13b-v1.5": "llama-2-13b", "llama-7b": "llama-2-7b",
    "llama-13b": "llama-2-13b",
}  # fmt: skip
#: Endings of checkpoints' names that change no size of the model.
_ENDINGS = re.compile(r"(-(gptq|awq|hf|instruct|chat|gemv|gemm|int4|nvfp4|fp8|v1))+$")


@dataclass(frozen=True)
class ForeignRun:
    """One run as a foreign file has it; None for what it does not say.

    Attributes:
        where: the row, in words.
        boundary: what the tool's clock held, in words.
        stages: samples of the stages that it held.
        model: the tool's name of it.
        device_name: likewise.
        dtype: likewise, weights first.
        batch_size: sequences.
        prompt_tokens: tokens of one prompt, visual ones included.
        visual_tokens: visual tokens of one prompt; 0 for a prompt of text.
        decode_steps: decode steps after the first token.
        mode: as in `Configuration`; `compile` for an engine of its own fused kernels.
        attention: likewise.
        environment: software, as in a record.
        why_missing: what the record lacks, and why.
        left_out: why the file's own words rule the row out.
    """

    where: str
    boundary: str
    stages: Mapping[str, StageSamples]
    model: str | None = None
    device_name: str | None = None
    dtype: str | None = None
    batch_size: int | None = None
    prompt_tokens: int | None = None
    visual_tokens: int | None = None
    decode_steps: int | None = None
    mode: str = "eager"
    attention: str = "sdpa"
    environment: Mapping[str, Any] = field(default_factory=dict)
    why_missing: Mapping[str, str] = field(default_factory=dict)
    left_out: str | None = None


@dataclass(frozen=True)
class Told:
    """What somebody says of a file's runs that the file does not say itself.

    Attributes:
        models: the tool's name of a model, or an empty text for all -> a name, a config or a folder here.
        hardware: the device.
        dtype: the arithmetic, a label of this project.
        batch_size: sequences.
        visual_tokens: of one prompt.
        text_tokens: of one prompt.
        output_tokens: tokens generated, the first included.
    """

    models: Mapping[str, str] = field(default_factory=dict)
    hardware: str | None = None
    dtype: str | None = None
    batch_size: int | None = None
    visual_tokens: int | None = None
    text_tokens: int | None = None
    output_tokens: int | None = None

    def __post_init__(self) -> None:
        """Refuse counts that none can be, and an arithmetic that nothing can be priced in."""
        if self.dtype is not None:
            parse_precision(self.dtype)
        least = {"batch_size": 1, "visual_tokens": 0, "text_tokens": 1, "output_tokens": 1}
        for name, lowest in least.items():
            value = getattr(self, name)
            if value is not None:
                check_count(name, value, lowest)


class LeftOut(NamedTuple):
    """A row that became no record, and why."""

    where: str
    why: str


def record_of(run: ForeignRun, told: Told, tool: str, source: str) -> Measurement | LeftOut:
    """Return the record of a run, or why it becomes none.

    Raises:
        InvalidInputError: what was told is none: an unknown model or device.
    """
    if run.left_out is not None:
        return LeftOut(run.where, run.left_out)
    if not any(samples.event_s for samples in run.stages.values()):
        return LeftOut(run.where, "it has no time")
    model = _model(run, told)
    dtype = told.dtype if run.dtype is None else _dtype(run.dtype)
    batch = run.batch_size or told.batch_size
    visual = told.visual_tokens if run.visual_tokens is None else run.visual_tokens
    prompt = run.prompt_tokens
    if prompt is None and told.text_tokens is not None and visual is not None:
        prompt = told.text_tokens + visual
    missing = [
        f"{name} ({option})"
        for name, value, option in (
            ("the model", model, "--model"),
            ("the arithmetic", dtype, "--dtype"),
            ("the batch", batch, "--batch-size"),
            ("how many tokens are visual", visual, "--visual-tokens"),
            ("the prompt's length", prompt, "--text-tokens"),
        )
        if value is None
    ]
    if model is None or dtype is None or batch is None or prompt is None or visual is None:
        return LeftOut(run.where, f"the file does not say {', '.join(missing)}")
    if prompt <= visual:
        return LeftOut(run.where, f"{visual} visual tokens of a prompt of {prompt} leave no text")
    steps = run.decode_steps
    if steps is None and told.output_tokens is not None:
        steps = told.output_tokens - 1
    needs_steps = {"decode", GENERATION} & set(run.stages)
    if needs_steps and steps is None:
        return LeftOut(run.where, "the file does not say how many tokens it made (--output-tokens)")
    hardware = _device(run, told)
    record = Measurement(
        configuration=Configuration(
            model=model.name,
            dtype=dtype,
            visual_tokens=visual,
            text_tokens=prompt - visual,
            batch_size=batch,
            output_tokens=steps or 0,
            mode=run.mode,
            attention=run.attention,
        ),
        status="ok",
        sampling=Sampling(timer=tool),
        stages=dict(run.stages),
        tokens=TokenCounts(visual_llm=visual, text=prompt - visual),
        environment=_environment(run, hardware, source),
        why_missing=dict(run.why_missing),
        boundary=run.boundary,
        model_config=model.config,
    )
    too_fast = None if hardware is None else _above_peak(record, hardware)
    return record if too_fast is None else LeftOut(run.where, too_fast)


class _Model(NamedTuple):
    name: str
    config: Mapping[str, Any] | None


def _model(run: ForeignRun, told: Told) -> _Model | None:
    """Return a run's model as a record names it, with the config that prices it where it is not shipped."""
    theirs = run.model or ""
    ours = told.models.get(theirs) or told.models.get(_last(theirs)) or told.models.get("")
    if ours is not None:
        from costmodel.models import load_model

        load_model(ours)
        return _Model(public_name(ours), carried_config(ours))
    if not theirs:
        return None
    return _Model(shipped_model(theirs) or _last(theirs) or theirs, None)


def shipped_model(theirs: str) -> str | None:
    """Return the shipped model that a checkpoint's name means; None for none.

    >>> shipped_model("Qwen/Qwen2.5-VL-3B-Instruct"), shipped_model("TheBloke/Llama-2-7B-GPTQ")
    ('qwen2.5-vl-3b', 'llama-2-7b')
    """
    hub = re.search(r"models--([\w.-]+?)--([\w.-]+)", theirs)
    found = f"{hub[1]}/{hub[2]}" if hub else theirs
    if found in ALIASES:
        return ALIASES[found]
    last = _last(found).lower()
    plain = _ENDINGS.sub("", last)
    for name in (last, plain):
        for each in (name, _lowered().get(name), _SAME_ARCHITECTURE.get(name)):
            if each in list_models():
                return each
    return None


@lru_cache(maxsize=1)
def _lowered() -> dict[str, str]:
    return {alias.rpartition("/")[2].lower(): name for alias, name in ALIASES.items()}


def _last(name: str) -> str:
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1]


def _dtype(theirs: str) -> str | None:
    """Return the label of a tool's name for the arithmetic of the language model's weights."""
    first = theirs.split(" / ")[0].strip().lower().removeprefix("torch.")
    return _DTYPES.get(first)


def _device(run: ForeignRun, told: Told) -> HardwareSpec | None:
    """Return the device that a run names, else the one that was told; None where neither is known.

    Raises:
        UnknownHardwareError: the device that was told is none.
    """
    from hardware_specs import get_hardware, match_device_name

    asked = None if told.hardware is None else get_hardware(told.hardware)
    for find in (match_device_name, str) if run.device_name is not None else ():
        with suppress(UnknownHardwareError):
            return get_hardware(find(str(run.device_name)))
    return asked


def _environment(run: ForeignRun, spec: HardwareSpec | None, source: str) -> dict[str, Any]:
    """Return a record's environment; what tells modules of one name apart is from the device's file."""
    found = {**run.environment, "imported": f"{source}, {run.where}"}
    if spec is None:
        return found if run.device_name is None else {**found, "device_name": run.device_name}
    described = {
        "device_name": spec.device_names[0] if spec.device_names else run.device_name or spec.name,
        "device_memory_bytes": spec.memory_reported_bytes or spec.memory_bytes,
        "sm_count": spec.sm_count,
        "device_file": spec.id,
    }
    return {**found, **{name: value for name, value in described.items() if value is not None}}


def _above_peak(record: Measurement, hardware: HardwareSpec) -> str | None:
    """Return how a record is faster than its device can be; None where it is not, or nobody can tell."""
    from profiling.reconciling.joining import Predictor
    from profiling.reconciling.rows import above_roof, stage_view

    try:
        model_of(record.configuration.model, record.model_config)
        prediction = Predictor(hardware, None).predict(record)
    except VlmRooflineError:
        return None
    for name, samples in record.stages.items():
        measured = samples.median_s
        if measured is None:
            continue
        ideal_s = float(stage_view(prediction, name).ideal.time_s)
        found = above_roof(prediction, name, measured, ideal_s, hardware)
        if found is not None and found[0] == "compute":
            return f"its {name} is {found[1]}"
    return None


def once(value: float | None, **others: Any) -> StageSamples:
    """Return the samples of a stage of which a file has one number: a mean, or a median."""
    return StageSamples(event_s=() if value is None else (value,), **others)


def present(stages: Mapping[str, StageSamples]) -> dict[str, StageSamples]:
    """Return the stages that have a time."""
    return {name: samples for name, samples in stages.items() if samples.event_s}
