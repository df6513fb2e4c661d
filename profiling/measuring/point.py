"""Measuring one configuration on a built model: all passes, one record.

The passes in their order: token counts; counters (eager, one run); then in the configuration's mode
timing, memory, energy. Running out of memory, at any of them, is a result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import (
    DeviceUnavailableError,
    InvalidInputError,
    UnsupportedError,
    VlmRooflineError,
)
from profiling.counting.memory import StageMemory, cuda_peaks
from profiling.counting.one_run import StageCounts, count_run
from profiling.devices.clocks import clock_for
from profiling.instruments.energy import measure_energy
from profiling.instruments.environment import describe_environment
from profiling.instruments.nvml import DeviceMonitor, open_monitor
from profiling.instruments.watch import HostLoad, Watch
from profiling.measuring.sampling import take_samples
from profiling.measuring.stopping import StopRule, WarmUpRule
from profiling.records.measurement import (
    TOTAL,
    Configuration,
    EnergyWindow,
    Measurement,
    Sampling,
    StageSamples,
    TokenCounts,
)
from profiling.subject.execution import Execution
from profiling.subject.models import QUANTISED_DTYPES
from profiling.subject.modes import applied_mode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from costmodel.models import ModelConfig


@dataclass(frozen=True, slots=True)
class Options:
    """How thoroughly each point is measured.

    Args:
        rule: when enough samples were taken.
        warm_up: when the first sample may be taken.
        counters: run once under the FLOP counter and the op ledger.
        memory: run once for the memory peaks.
        kernels: on CUDA, run once under the profiler to count kernels.
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
        if most is not None and not 0 < most < math.inf:
            raise InvalidInputError(f"max_foreign_load must be finite and above 0, not {most}")


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
    """
    options = options or Options()
    device = configuration.device
    if monitor is None:
        monitor = open_monitor(device)
    if environment is None:
        environment = describe_environment(device, monitor)
    blank = Measurement(
        configuration=configuration,
        status="ok",
        sampling=Sampling(timer=clock_for(device).name),
        environment=environment,
        capabilities=dict(monitor.capabilities),
        round=round_,
        position=position,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    try:
        return _measure(model, shape, blank, options, monitor)
    except (InvalidInputError, UnsupportedError) as error:
        # A method may learn only from the running model that it cannot do what was asked of it.
        return replace(blank, status="failed", error=str(error))
    except VlmRooflineError:
        raise
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            return replace(blank, status="out-of-memory", error=first_line(error))
        if "CUDA error" in str(error):
            # After such an error every further call fails: recording them would blame the points.
            raise DeviceUnavailableError(
                f"the CUDA context was lost at {configuration.key}: {first_line(error)}; "
                "start again to go on with the remaining points"
            ) from error
        return replace(blank, status="failed", error=first_line(error))
    finally:
        release_memory(device)


def _measure(
    model: nn.Module,
    shape: ModelConfig,
    blank: Measurement,
    options: Options,
    monitor: DeviceMonitor,
) -> Measurement:
    configuration = blank.configuration
    execution = Execution(model, shape, configuration)
    clock = clock_for(configuration.device)
    on_cuda = clock.asynchronous
    watch = Watch(
        monitor, None if on_cuda else HostLoad(), options.max_foreign_load, options.patience_s
    )
    counts: dict[str, StageCounts] = {}
    peaks: dict[str, StageMemory] = {}
    energy: tuple[EnergyWindow, ...] = ()
    missing: dict[str, str] = {}
    with execution.ready():
        tokens = execution.count_tokens()
        if options.counters:
            counts, peaks = count_run(execution)
        with applied_mode(
            configuration.mode,
            execution.parts,
            configuration.device,
            backend=options.compile_backend,
        ):
            samples = take_samples(
                execution, clock, rule=options.rule, warm_up=options.warm_up, guard=watch
            )
            state = watch.state()
            if on_cuda:
                peaks = cuda_peaks(execution, configuration.device) if options.memory else {}
            kernels = _kernels(execution, counts, on_cuda, options)
            if options.energy:
                energy = _energy(execution, clock.synchronize, monitor)
    _explain(missing, configuration, options, samples.sampling, on_cuda)
    stages = {
        name: _joined(
            data, counts.get(name), peaks.get(name) if options.memory else None, kernels.get(name)
        )
        for name, data in samples.stages.items()
    }
    throttled = samples.sampling.stop_reason == "throttled"
    return replace(
        blank,
        status="throttled" if throttled else "ok",
        error=f"0 accepted samples: {', '.join(state.throttle_reasons)}" if throttled else None,
        sampling=samples.sampling,
        stages=stages,
        tokens=tokens,
        device_state=state,
        energy=energy,
        capabilities={
            **blank.capabilities,
            "peak_memory": "cuda-allocator" if on_cuda else "op-ledger",
            "kernels": "profiler" if on_cuda else "op-ledger",
        },
        why_missing=missing,
    )


def _kernels(
    execution: Execution, counts: dict[str, StageCounts], on_cuda: bool, options: Options
) -> dict[str, int]:
    if on_cuda:
        if not options.kernels:
            return {}
        from profiling.tracing.kernels import count_kernels

        return count_kernels(execution)
    return {name: item.ops for name, item in counts.items()}


def _energy(
    execution: Execution, synchronize: Any, monitor: DeviceMonitor
) -> tuple[EnergyWindow, ...]:
    if not any(
        monitor.capabilities.get(name, "").startswith("available") for name in ("energy", "power")
    ):
        return (measure_energy(TOTAL, execution.first_logits, monitor, synchronize),)
    return tuple(
        measure_energy(stage, call, monitor, synchronize)
        for stage, call in execution.stage_callables().items()
    )


def _joined(
    data: StageSamples,
    counts: StageCounts | None,
    peaks: StageMemory | None,
    kernels: int | None,
) -> StageSamples:
    return replace(
        data,
        flops=None if counts is None else counts.flops,
        kernels=kernels,
        resident_bytes=None if peaks is None else peaks.resident_bytes,
        peak_allocated_bytes=None if peaks is None else peaks.peak_allocated_bytes,
        peak_reserved_bytes=None if peaks is None else peaks.peak_reserved_bytes,
    )


def _explain(
    missing: dict[str, str],
    configuration: Configuration,
    options: Options,
    sampling: Sampling,
    on_cuda: bool,
) -> None:
    """Return the reason for each missing quantity."""
    if not on_cuda:
        missing["enqueue_s"] = "calls on a CPU return when the work is done"
        missing["peak_reserved_bytes"] = "a CPU has no caching allocator"
    if not options.counters:
        missing["flops"] = "the counters were switched off"
    elif configuration.dtype in QUANTISED_DTYPES:
        missing["flops"] = "the counter loses ops on quantised weights; count the unquantised model"
    if not options.memory:
        missing["peak_allocated_bytes"] = "the memory run was switched off"
    elif not on_cuda and not options.counters:
        missing["peak_allocated_bytes"] = (
            "on a CPU the counting run finds it, which was switched off"
        )
    if not options.energy:
        missing["energy"] = "energy windows were switched off"
    if sampling.stop_reason == "throttled":
        missing["stages"] = "every chunk was rejected: the device was throttled or not alone"


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
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()


def failed_point(
    configuration: Configuration,
    error: BaseException,
    *,
    environment: Mapping[str, Any] | None = None,
    round_: int = 0,
    position: int = 0,
) -> Measurement:
    """Return the record of a point whose model could not even be built in memory."""
    return Measurement(
        configuration=configuration,
        status="out-of-memory" if is_out_of_memory(error) else "failed",
        sampling=Sampling(timer=clock_for(configuration.device).name),
        tokens=TokenCounts(),
        environment=environment or {},
        error=first_line(error),
        round=round_,
        position=position,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
