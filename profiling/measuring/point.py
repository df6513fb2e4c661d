"""Measuring one configuration on a built model: all passes, one record.

The passes in their order: token counts; counters and the allocator's peaks (eager, one run each);
then in the configuration's mode timing, kernels, energy. Running out of memory, at any of them, is a
result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from numbers import Real
from typing import TYPE_CHECKING, Any

from costmodel.kinds import refused
from hardware_specs.errors import (
    DeviceUnavailableError,
    InvalidInputError,
    UnsupportedError,
    VlmRooflineError,
    check_kind,
)
from profiling.counting.memory import StageMemory, allocator_peaks
from profiling.counting.one_run import StageCounts, count_run
from profiling.devices.device import clock_for, open_device
from profiling.instruments.energy import measure_energy
from profiling.instruments.environment import describe_environment
from profiling.instruments.nvml import DeviceMonitor, open_monitor
from profiling.instruments.watch import HostLoad, Watch
from profiling.measuring.sampling import take_samples
from profiling.measuring.stopping import StopRule, WarmUpRule
from profiling.records.measurement import (
    TOTAL,
    Configuration,
    Measurement,
    Sampling,
    StageSamples,
)
from profiling.records.samples import summarise
from profiling.subject.execution import Execution
from profiling.subject.models import QUANTISED_DTYPES
from profiling.subject.modes import applied_mode
from profiling.tracing.kernels import (
    KernelRecord,
    StageWork,
    attention_kernels,
    trace_run,
    work_by_stage,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from costmodel.models import ModelConfig
    from profiling.devices.interface import Clock, Device
    from profiling.measuring.together import Sharing
    from profiling.records.readings import EnergyWindow


@dataclass(frozen=True, slots=True)
class Options:
    """How thoroughly each point is measured.

    Args:
        rule: when enough samples were taken.
        warm_up: when the first sample may be taken.
        counters: run once under the FLOP counter and the op ledger.
        memory: run once for the memory peaks.
        kernels: on CUDA, run once under the profiler for the kernels and the seconds they ran.
        energy: measure energy windows where the device can.
        max_foreign_load: on a CPU, throw away samples beside which others used more of one
            processor than this, and wait for quiet; None takes them as they come.
        patience_s: how long to wait for quiet, or for a throttled device, per point.
        compile_backend: backend of `torch.compile` in mode `compile`.
    """

    rule: StopRule = field(default_factory=StopRule)
    warm_up: WarmUpRule = field(default_factory=WarmUpRule)
    counters: bool = True
    memory: bool = True
    kernels: bool = True
    energy: bool = True
    max_foreign_load: float | None = None
    patience_s: float = 10.0
    compile_backend: str = "inductor"

    def __post_init__(self) -> None:
        """Refuse a load that nobody can stay under."""
        most = self.max_foreign_load
        for name in ("max_foreign_load", "patience_s"):
            if (value := getattr(self, name)) is not None or name == "patience_s":
                check_kind(name, value, Real, "a number")
        if most is not None and not 0 < most < math.inf:
            raise InvalidInputError(f"max_foreign_load must be finite and above 0, not {most}")
        if not self.patience_s >= 0:
            raise refused("patience_s", "a number of seconds from 0", self.patience_s)


def measure_point(
    model: nn.Module,
    shape: ModelConfig,
    configuration: Configuration,
    *,
    options: Options | None = None,
    monitor: DeviceMonitor | None = None,
    environment: Mapping[str, Any] | None = None,
    round_: int = 0,
    position: int = 0,
    sharing: Sharing | None = None,
) -> Measurement:
    """Measure one configuration; an out-of-memory or a refusal is recorded, not raised.

    Args:
        model: built for the configuration's dtype and device.
        shape: the cost model's description of the model.
        configuration: the settings to run.
        options: how thoroughly each point is measured.
        monitor: the interface to the device's sensors; opened when None.
        environment: software and device; described when None.
        round_: which round of the campaign this is.
        position: which place in the campaign's order.
        sharing: the processes that share the model, of which each calls this; None for one alone. What
            stops one of them is raised, since the others cannot go on.

    Raises:
        RankError: this process or another one failed.
    """
    options = options or Options()
    device = open_device(configuration.device)
    if monitor is None:
        monitor = open_monitor(device.name)
    if environment is None:
        environment = describe_environment(device.name, monitor)
    blank = replace(
        _begun(configuration, environment, round_, position),
        capabilities=dict(monitor.capabilities),
    )
    with device.current():
        if sharing is None:
            record = _recorded(model, shape, blank, options, monitor, device)
        else:
            with sharing.group.guarded(configuration.key):
                record = _measure(model, shape, blank, options, monitor, device, sharing)
        release_memory(device.name)
    return record


def _recorded(
    model: nn.Module,
    shape: ModelConfig,
    blank: Measurement,
    options: Options,
    monitor: DeviceMonitor,
    device: Device,
) -> Measurement:
    """Measure, and turn what can happen to one point into its record."""
    try:
        return _measure(model, shape, blank, options, monitor, device)
    except (InvalidInputError, UnsupportedError) as error:
        # A method may learn only from the running model that it cannot do what was asked of it.
        return replace(blank, status="failed", error=str(error))
    except VlmRooflineError:
        raise
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            return replace(blank, status="out-of-memory", error=first_line(error))
        if not device.is_alive():
            # After such an error every further call fails: recording them would blame the points.
            raise DeviceUnavailableError(
                f"the CUDA context was lost at {blank.configuration.key}: {first_line(error)}; "
                "start again to go on with the remaining points"
            ) from error
        return replace(blank, status="failed", error=first_line(error))


def _measure(
    model: nn.Module,
    shape: ModelConfig,
    blank: Measurement,
    options: Options,
    monitor: DeviceMonitor,
    device: Device,
    sharing: Sharing | None = None,
) -> Measurement:
    configuration = blank.configuration
    execution = Execution(model, shape, configuration)
    clock, allocator = device.clock(), device.memory()
    watch = Watch(
        monitor,
        # The other processes of a group would count as somebody else's load.
        None if clock.asynchronous or sharing is not None else HostLoad(),
        options.max_foreign_load,
        options.patience_s,
    )
    counts: dict[str, StageCounts] = {}
    peaks: dict[str, StageMemory] = {}
    energy: tuple[EnergyWindow, ...] = ()
    pool: int | None = None
    with execution.ready():
        tokens = execution.count_tokens()
        sent = {} if sharing is None else sharing.sent_by(execution.run)
        if options.counters:
            counts, peaks = count_run(execution)
        if allocator is not None:
            # In eager mode: a replayed graph allocates nothing, which is not what it needs.
            peaks = allocator_peaks(execution, allocator) if options.memory else {}
        held = _held_bytes(device, configuration.mode)
        with applied_mode(
            configuration.mode,
            execution.parts,
            configuration.device,
            backend=options.compile_backend,
        ):
            samples = take_samples(
                execution, clock, rule=options.rule, warm_up=options.warm_up, guard=watch,
                together=None if sharing is None else sharing.group,
            )  # fmt: skip
            state = watch.state()
            if held is not None:
                pool = (_held_bytes(device, configuration.mode) or 0) - held
            traced = trace_run(execution) if clock.asynchronous and options.kernels else []
            if options.energy and sharing is None:
                energy = _energy(execution, clock, monitor)
    missing = _missing(configuration, options, samples.sampling, device)
    work = _work(traced, counts, clock.asynchronous)
    stages = {
        name: _joined(
            data, counts.get(name), peaks.get(name) if options.memory else None, work.get(name)
        )
        for name, data in samples.stages.items()
    }
    if work and clock.asynchronous:
        missing |= {
            f"{name}.host_s_per_kernel": "the host waited for the device while issuing this stage"
            for name, data in stages.items()
            if data.host_s_per_kernel is None
        }
    throttled = samples.sampling.stop_reason == "throttled"
    record = replace(
        blank,
        status="throttled" if throttled else "ok",
        sampling=samples.sampling,
        stages=stages,
        tokens=tokens,
        device_state=state,
        energy=energy,
        capabilities={
            **blank.capabilities,
            "peak_memory": "op-ledger" if allocator is None else allocator.name,
            "kernels": "profiler" if clock.asynchronous else "op-ledger",
        },
        why_missing=missing,
        attention_kernels=attention_kernels(traced),
        graph_pool_bytes=pool,
    )
    if sharing is not None:
        record = sharing.joined(record, model, sent)
    return replace(record, error=nothing_accepted(record)) if throttled else record


def nothing_accepted(record: Measurement) -> str:
    """Return why a record has no samples: what any of its processes saw of its device."""
    states = [record.device_state]
    if record.ranks is not None:
        states = [member.device_state for member in record.ranks.members]
    reasons = sorted({reason for state in states for reason in state.throttle_reasons})
    return f"0 accepted samples: {', '.join(reasons)}"


def _held_bytes(device: Device, mode: str) -> int | None:
    """Return what the allocator holds besides cached blocks, where graphs add a pool to it."""
    allocator = device.memory()
    if mode != "cuda-graph" or allocator is None:
        return None
    device.release_memory()
    return allocator.reserved_bytes()


def _work(
    traced: list[KernelRecord], counts: dict[str, StageCounts], asynchronous: bool
) -> dict[str, StageWork]:
    """Return kernels and their time by stage: of a profiler pass, or dispatched ops on a CPU."""
    if asynchronous:
        return work_by_stage(traced) if traced else {}
    return {name: StageWork(item.ops, None) for name, item in counts.items()}


def host_seconds_per_kernel(data: StageSamples, work: StageWork) -> float | None:
    """Return the host's seconds to issue one kernel of a stage, None where it waited while issuing.

    median(enqueue_s) / kernels. A device's queue holds about a thousand launches; once it is full the
    host's time is the device's. The host was free where it issued in under half of the stage's time,
    or where the device stood idle for over a fifth of it.

    >>> host_seconds_per_kernel(StageSamples((1.0,), enqueue_s=(0.2,)), StageWork(100, 0.9))
    0.002
    >>> host_seconds_per_kernel(StageSamples((1.0,), enqueue_s=(0.9,)), StageWork(100, 0.95)) is None
    True
    """
    event, enqueue = summarise(data.event_s).median_s, summarise(data.enqueue_s).median_s
    if event is None or enqueue is None or work.busy_s is None or not work.kernels:
        return None
    free = enqueue < 0.5 * event or work.busy_s < 0.8 * event
    return enqueue / work.kernels if free else None


def _energy(execution: Execution, clock: Clock, monitor: DeviceMonitor) -> tuple[EnergyWindow, ...]:
    if not any(
        monitor.capabilities.get(name, "").startswith("available") for name in ("energy", "power")
    ):
        return (measure_energy(TOTAL, execution.first_logits, monitor, clock),)
    return tuple(
        measure_energy(stage, call, monitor, clock)
        for stage, call in execution.stage_callables().items()
    )


def _joined(
    data: StageSamples,
    counts: StageCounts | None,
    peaks: StageMemory | None,
    work: StageWork | None,
) -> StageSamples:
    return replace(
        data,
        flops=None if counts is None else counts.flops,
        kernels=None if work is None else work.kernels,
        busy_s=None if work is None else work.busy_s,
        host_s_per_kernel=None if work is None else host_seconds_per_kernel(data, work),
        resident_bytes=None if peaks is None else peaks.resident_bytes,
        peak_allocated_bytes=None if peaks is None else peaks.peak_allocated_bytes,
        peak_reserved_bytes=None if peaks is None else peaks.peak_reserved_bytes,
    )


def _missing(
    configuration: Configuration, options: Options, sampling: Sampling, device: Device
) -> dict[str, str]:
    """Return the reason for each missing quantity."""
    missing = dict(device.why_missing)
    if "busy_s" not in missing and not options.kernels:
        missing["busy_s"] = missing["kernels"] = "the profiler pass was switched off"
    if not options.counters:
        missing["flops"] = "the counters were switched off"
    elif configuration.dtype in QUANTISED_DTYPES:
        missing["flops"] = "the counter loses ops on quantised weights; count the unquantised model"
    if not options.memory:
        missing["peak_allocated_bytes"] = "the memory run was switched off"
    elif device.memory() is None and not options.counters:
        missing["peak_allocated_bytes"] = (
            "on a CPU the counting run finds it, which was switched off"
        )
    if configuration.tp > 1:
        missing["energy"] = "energy windows are measured with one process"
    elif not options.energy:
        missing["energy"] = "energy windows were switched off"
    if sampling.stop_reason == "throttled":
        missing["stages"] = "every chunk was rejected: the device was throttled or not alone"
    return missing


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out, on a GPU or on the host."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return any(
        word in text for word in ("can't allocate memory", "out of memory", "not enough memory")
    )


def first_line(error: BaseException) -> str:
    """Return an error's type and first line, for a record."""
    text = str(error).strip() or type(error).__name__
    return f"{type(error).__name__}: {text.splitlines()[0]}"


def release_memory(device: str) -> None:
    """Return free memory to the device, so that every point starts from the same state."""
    import gc

    gc.collect()
    open_device(device).release_memory()


def failed_point(
    configuration: Configuration,
    error: BaseException,
    *,
    environment: Mapping[str, Any],
    round_: int,
    position: int,
) -> Measurement:
    """Return the record of a point whose model could not even be built in memory."""
    return replace(
        _begun(configuration, environment, round_, position),
        status="out-of-memory" if is_out_of_memory(error) else "failed",
        error=first_line(error),
    )


def _begun(
    configuration: Configuration, environment: Mapping[str, Any], round_: int, position: int
) -> Measurement:
    return Measurement(
        configuration=configuration,
        status="ok",
        sampling=Sampling(timer=clock_for(configuration.device).name),
        environment=environment,
        round=round_,
        position=position,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
