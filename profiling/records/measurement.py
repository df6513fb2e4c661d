"""The record of one measured configuration: immutable, complete, with every raw sample.

The file format has `schema_version` 2: a stage is a record of its own (event, wall and enqueue
samples, steps, memory, kernels, FLOPs), and energy is a window per stage with both methods. A record of
several processes has `schema_version` 3: it says `tp`, and `ranks` has the samples of each.

Nothing that was not measured is ever a number: it is None, or an empty tuple, and `why_missing`
names the reason.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

from costmodel.kinds import check_count
from hardware_specs.errors import InvalidInputError, check_kind
from hardware_specs.showing import brief
from profiling.records.model_names import carried_config, public_name
from profiling.records.readings import STRICT, DeviceState, EnergyWindow
from profiling.records.samples import Summary, summarise

SCHEMA_VERSION = 2
#: Of a record of several processes that shared a model.
RANKS_VERSION = 3

#: Beside the stages of the cost model: everything up to the first logits (TTFT).
TOTAL = "total"
#: In other tools' results: the prompt and all tokens after it, timed as one.
GENERATION = "generation"
#: Of several processes: their collectives up to the first logits, inside other stages, and those of the
#: decode steps. On a CPU the seconds from a collective's call to its return, on a GPU between events on the
#: stream before and behind it: waiting for the others is inside.
COMMUNICATION, DECODE_COMMUNICATION = "communication", "decode-communication"
MODES = ("eager", "cuda-graph", "compile")

#: Counts of a configuration -> the least that each can be.
_COUNTS = {"images": 1, "frames": 1, "visual_tokens": 0, "text_tokens": 1, "batch_size": 1,
           "output_tokens": 0, "tp": 1}  # fmt: skip

Status = Literal["ok", "out-of-memory", "failed", "throttled"]


@dataclass(frozen=True, slots=True)
class Configuration:
    """The requested run, which identifies a measurement.

    Args:
        model: shipped name, path or hub id, with its scale (`llava-1.5-7b@layers=4,width=1/4`). A
            record and its file's name have no path but `profiling.records.model_names.public_name`.
        dtype: `fp32`, `fp16`, `bf16`, or a quantised label (`w8a16`, `w8a8`, `w4a16`, `fp8`).
        method: token-reduction method with its settings, such as `fastv` or `tome(r=8)`; `none` for
            none.
        keep: what the method was given, None for its published default.
        visual_tokens: visual tokens handed to the language model (method `none`), or the tokens a
            method was asked to keep; None for the model's own number.
        text_tokens: text tokens in the prompt.
        batch_size: sequences.
        output_tokens: decode steps timed after the prefill.
        mode: `eager`, `cuda-graph` or `compile`.
        device: `cuda` or `cpu`.
        attention: attention implementation of `transformers`.
        cache: `warm` runs back to back, `cold` flushes the device's caches before each repetition.
        images: images in a prompt; None is one, or as many as `visual_tokens` say.
        image_sizes: (height, width) in pixels of every image, or of each; empty for the default.
        frames: of a clip in place of images; None where the model's own input is taken.
        tp: processes that share the language model, each on a device of its own.

    >>> Configuration("llava-1.5-7b", "bf16", visual_tokens=64).key[:33]
    'llava-1.5-7b_bf16_none_v64_b1_eag'
    """

    __pydantic_config__ = STRICT

    model: str
    dtype: str
    method: str = "none"
    keep: int | float | None = None
    visual_tokens: int | None = None
    text_tokens: int = 40
    batch_size: int = 1
    output_tokens: int = 0
    mode: str = "eager"
    device: str = "cuda"
    attention: str = "sdpa"
    cache: str = "warm"
    images: int | None = None
    image_sizes: tuple[tuple[int, int], ...] = ()
    frames: int | None = None
    tp: int = 1

    __repr__ = brief

    def __post_init__(self) -> None:
        """Reject counts out of range and unknown modes or cache states."""
        for name in ("model", "dtype", "method", "device", "attention"):
            check_kind(name, getattr(self, name), str, "a name")
        for name, least in _COUNTS.items():
            value = getattr(self, name)
            if value is not None or name not in ("images", "frames", "visual_tokens"):
                object.__setattr__(self, name, check_count(name, value, least))
        if self.mode not in MODES:
            raise InvalidInputError(f"mode {self.mode!r} is none of {', '.join(MODES)}")
        if self.cache not in ("warm", "cold"):
            raise InvalidInputError(f"cache {self.cache!r} is neither 'warm' nor 'cold'")

    @property
    def key(self) -> str:
        """Return a file-name-safe identity: readable first, then a digest over every field."""
        model = public_name(self.model)
        fields = {**asdict(self), "model": model}
        # Left out where nothing was said, so that records made before there were these keep their names.
        for name in ("images", "image_sizes", "frames"):
            if not fields[name]:
                del fields[name]
        if self.tp == 1:
            del fields["tp"]
        digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:10]
        tokens = "default" if self.visual_tokens is None else str(self.visual_tokens)
        source, _, scale = model.partition("@")
        name = re.split(r"[/\\]", source.rstrip("/\\"))[-1] + (f"@{scale}" if scale else "")
        words = f"{name}_{self.dtype}_{self.method}_v{tokens}_b{self.batch_size}_{self.mode}"
        return f"{re.sub(r'[^A-Za-z0-9.+_-]', '-', words)[:80]}_{digest}"


@dataclass(frozen=True, slots=True)
class StageSamples:
    """Every raw sample of one stage.

    Args:
        event_s: seconds per repetition between two events on the stream (CUDA) or two readings of
            the clock (CPU); a decode sample spans all its steps.
        enqueue_s: seconds the host needed to issue the stage, started on an idle device. Once the
            queue is full the host waits for the device, so in a stage of over a thousand kernels
            this is the device's time; `host_s_per_kernel` is given only where it is not.
        wall_s: seconds from the call to the end of the device's work, started on an idle device.
        step_event_s: decode only, per repetition the seconds of each step.
        resident_bytes: bytes allocated when the stage began.
        peak_allocated_bytes: highest allocated total during the stage.
        peak_reserved_bytes: highest total the allocator held during the stage.
        kernels: device kernels (CUDA) or compute ops dispatched (CPU) in one repetition.
        flops: counted by `torch.utils.flop_counter` in one repetition.
        busy_s: seconds that the kernels of one repetition ran, summed from a profiler pass.
        host_s_per_kernel: seconds that the host needed to issue one of these kernels.
        idle_event_s: the same as `event_s` in repetitions that each started on an idle device. A
            method that reads its prompt back waits for the repetition before, and a run without a
            method does not: the two are compared by these.
    """

    __pydantic_config__ = STRICT

    event_s: tuple[float, ...] = ()
    enqueue_s: tuple[float, ...] = ()
    wall_s: tuple[float, ...] = ()
    step_event_s: tuple[tuple[float, ...], ...] = ()
    resident_bytes: int | None = None
    peak_allocated_bytes: int | None = None
    peak_reserved_bytes: int | None = None
    kernels: int | None = None
    flops: int | None = None
    busy_s: float | None = None
    host_s_per_kernel: float | None = None
    idle_event_s: tuple[float, ...] = ()

    __repr__ = brief

    @property
    def summary(self) -> Summary:
        """Return median, spread and count of the event samples."""
        return summarise(self.event_s)

    @property
    def median_s(self) -> float | None:
        """Return the median event time in seconds."""
        return self.summary.median_s

    @property
    def host_bound(self) -> bool | None:
        """Return whether issuing the stage took over 90 % of the time it occupied the stream.

        Source: launch-bound streams idle between kernels, so event time equals host time. A stage
        whose kernels alone fill its time is not, however long the host took: it waited for room in
        the queue. Neither is one that is over in under two thirds of its issuing, which ran from a
        queue behind the repetition before. None when the host's time was not measured (a CPU has no
        queue).

        >>> StageSamples(event_s=(1.0,), enqueue_s=(0.95,)).host_bound
        True
        >>> StageSamples(event_s=(1.0,), enqueue_s=(0.95,), busy_s=0.97).host_bound
        False
        >>> StageSamples(event_s=(1.0,), enqueue_s=(2.0,)).host_bound
        False
        """
        event, enqueue = summarise(self.event_s).median_s, summarise(self.enqueue_s).median_s
        if event is None or enqueue is None:
            return None
        if self.busy_s is not None and self.busy_s > 0.9 * event:
            return False
        return 0.9 * event < enqueue < 1.5 * event

    @property
    def idle_s(self) -> float | None:
        """Return the seconds of the event time in which no kernel ran: the host's share of it.

        median(event_s) - busy_s, and 0 where the two passes differ by less than their noise; None
        without a profiler pass.

        >>> StageSamples(event_s=(1.0,), busy_s=0.25).idle_s
        0.75
        """
        event = summarise(self.event_s).median_s
        if event is None or self.busy_s is None:
            return None
        return max(0.0, event - self.busy_s)


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Token counts observed during the run, not those requested.

    Args:
        visual_in: visual tokens per sequence that left the projector.
        visual_llm: visual tokens per sequence that entered the language model.
        text: text tokens per sequence.
        crops: images (tiles, frames) per sequence through the vision tower.
        cache_lengths: KV cache length of every layer after the prefill; a method inside the
            language model leaves it ragged.
    """

    __pydantic_config__ = STRICT

    visual_in: int | None = None
    visual_llm: int | None = None
    text: int | None = None
    crops: int | None = None
    cache_lengths: tuple[int, ...] = ()

    __repr__ = brief


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the samples were taken.

    Args:
        timer: `cuda-event` or `perf_counter`.
        first_call_s: the first run, with everything it builds and compiles.
        warm_up_s: the following runs until the time was steady; never part of the samples.
        steady: whether it became so before the warm-up budget ran out.
        stop_reason: `noise-under-target`, `noise-stable`, `time-out` or `sample-count`.
        target_dispersion: the IQR over median that was aimed at.
        rejected_s: totals thrown away because the device was throttled.
        rounds: how often each configuration is measured in this campaign.
    """

    __pydantic_config__ = STRICT

    timer: str
    first_call_s: float | None = None
    warm_up_s: tuple[float, ...] = ()
    steady: bool | None = None
    stop_reason: str | None = None
    target_dispersion: float | None = None
    rejected_s: tuple[float, ...] = ()
    rounds: int = 1

    __repr__ = brief


@dataclass(frozen=True, slots=True)
class RankSamples:
    """What one of the processes that shared a model measured: the same repetitions as the others.

    Args:
        stages: its samples.
        device_name: its device.
        device_state: readings of that device.
        parameters: weights that it holds.
    """

    __pydantic_config__ = STRICT

    stages: Mapping[str, StageSamples]
    device_name: str | None = None
    device_state: DeviceState = field(default_factory=DeviceState)
    parameters: int | None = None

    __repr__ = brief

    def __post_init__(self) -> None:
        """Close the mapping."""
        object.__setattr__(self, "stages", MappingProxyType(dict(self.stages)))


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes that shared a model, as `torchrun` started them, and what each one measured.

    The record's own stages have of every sample the largest among these: the slowest process in that
    repetition. So have memory, FLOPs and counts.

    Args:
        backend: what carried their collectives, `gloo` or `nccl`.
        collective_bytes: of one repetition with its decode steps, by kind of collective: of what is
            summed up, and of what a gather yields.
        members: one for each process, in the order of their ranks.
    """

    __pydantic_config__ = STRICT

    backend: str
    collective_bytes: Mapping[str, int]
    members: tuple[RankSamples, ...]

    __repr__ = brief

    def __post_init__(self) -> None:
        """Close the mapping."""
        closed = MappingProxyType(dict(self.collective_bytes))
        object.__setattr__(self, "collective_bytes", closed)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One configuration, measured once (or the reason why it could not be).

    A model that is not shipped is carried along as `model_config`, its scaled Hugging Face config.
    `attention_kernels` names the kernels that ran attention in the prefill, with how often: which
    implementation was timed. `graph_pool_bytes` is what the allocator held beyond eager mode after
    the graphs were captured.
    `boundary` says of another tool's result what its clock held, and such a record has the stages
    that were inside and no others; None where every stage was timed here, up to `total`.
    `ranks` has the samples of each of several processes; None for one.
    """

    __pydantic_config__ = STRICT

    configuration: Configuration
    status: Status
    sampling: Sampling
    stages: Mapping[str, StageSamples] = field(default_factory=dict)
    tokens: TokenCounts = field(default_factory=TokenCounts)
    device_state: DeviceState = field(default_factory=DeviceState)
    energy: tuple[EnergyWindow, ...] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    capabilities: Mapping[str, str] = field(default_factory=dict)
    why_missing: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None
    round: int = 0
    position: int = 0
    started_at: str = ""
    model_config: Mapping[str, Any] | None = None
    attention_kernels: Mapping[str, int] = field(default_factory=dict)
    graph_pool_bytes: int | None = None
    boundary: str | None = None
    ranks: Ranks | None = None
    schema_version: int = SCHEMA_VERSION

    __repr__ = brief

    def __post_init__(self) -> None:
        """Close the mappings, so that a record stays what was measured."""
        for name in ("stages", "environment", "capabilities", "why_missing", "attention_kernels"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @property
    def file_name(self) -> str:
        """Return the name of this record's file: configuration and round, nothing else."""
        return record_name(self.configuration, self.round)

    @property
    def ttft_s(self) -> float | None:
        """Return the median time to the first logits in seconds."""
        return self.stages[TOTAL].median_s if TOTAL in self.stages else None

    @property
    def tpot_s(self) -> float | None:
        """Return the median time of one decode step in seconds, over all steps and repetitions."""
        decode = self.stages.get("decode")
        if decode is None or not decode.step_event_s:
            return None
        return summarise([step for steps in decode.step_event_s for step in steps]).median_s

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data, in the order of the fields."""
        document: dict[str, Any] = plain(self)
        if self.ranks is None:
            # As it was before there were several processes, to the byte.
            del document["ranks"], document["configuration"]["tp"]
        return {"schema_version": document.pop("schema_version"), **document}


def shareable(measurement: Measurement) -> Measurement:
    """Return a record that names no path and carries what prices it.

    Another tool's record carries its config already, or is of a model that nobody here knows.
    """
    configuration, config = measurement.configuration, measurement.model_config
    if config is None and measurement.boundary is None:
        config = carried_config(configuration.model)
    name, error = public_name(configuration.model), measurement.error
    if error is not None and name != configuration.model:
        error = error.replace(configuration.model.partition("@")[0], name)
    return replace(
        measurement,
        configuration=replace(configuration, model=name),
        model_config=config,
        error=error,
    )


def record_name(configuration: Configuration, round_: int) -> str:
    """Return the file name that holds a configuration's measurement of one round."""
    return f"{configuration.key}_r{round_}.json"


def plain(value: Any) -> Any:
    """Turn records, mappings and tuples into dicts and lists, leaving scalars alone."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
