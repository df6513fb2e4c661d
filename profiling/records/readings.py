"""Readings of a device's sensors in a record: its state around the samples, and windows of energy."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - pydantic reads the annotations
from dataclasses import dataclass, field

from hardware_specs.showing import brief

#: Read by pydantic from each class: a key that it does not know is refused, not dropped.
STRICT = {"extra": "forbid"}


@dataclass(frozen=True, slots=True)
class EnergyWindow:
    """Energy of one stage, from many repetitions back to back.

    Args:
        stage: the stage that was repeated.
        method: `nvml_counter`, `power_integral` or `unavailable`; the source of `energy_j`.
        energy_j: joules per repetition.
        counter_j: joules per repetition by the device's energy counter.
        integral_j: joules per repetition by integrating sampled power.
        power_w: mean power in the window.
        idle_power_w: mean power before the window, with nothing running.
        window_s: length of the window.
        repetitions: number of runs in the window.
        power_samples_w: the raw power samples.
        power_times_s: when each was taken, from the window's start.
        why_missing: the reason for each missing quantity.
        counter_period_s: seconds between two moves of the counter while it was watched.
    """

    __pydantic_config__ = STRICT

    stage: str
    method: str
    energy_j: float | None = None
    counter_j: float | None = None
    integral_j: float | None = None
    power_w: float | None = None
    idle_power_w: float | None = None
    window_s: float | None = None
    repetitions: int = 0
    power_samples_w: tuple[float, ...] = ()
    power_times_s: tuple[float, ...] = ()
    why_missing: Mapping[str, str] = field(default_factory=dict)
    counter_period_s: float | None = None

    __repr__ = brief


@dataclass(frozen=True, slots=True)
class DeviceState:
    """Readings of the device around the samples; empty or None where it reports nothing.

    Args:
        sm_clock_hz: clock of the multiprocessors, after each chunk of samples.
        memory_clock_hz: clock of the memory.
        temperature_c: temperature in degrees Celsius.
        power_w: power drawn.
        throttle_reasons: every reason seen, `foreign-load` among them.
        foreign_load: on a CPU, what others used beside each chunk, as a share of one processor.
        memory_used_bytes: device memory in use by all processes.
        foreign_processes: other processes on the device.
        foreign_memory_bytes: device memory that they hold.
    """

    __pydantic_config__ = STRICT

    sm_clock_hz: tuple[int, ...] = ()
    memory_clock_hz: tuple[int, ...] = ()
    temperature_c: tuple[int, ...] = ()
    power_w: tuple[float, ...] = ()
    throttle_reasons: tuple[str, ...] = ()
    foreign_load: tuple[float, ...] = ()
    memory_used_bytes: int | None = None
    foreign_processes: int | None = None
    foreign_memory_bytes: int | None = None

    __repr__ = brief
