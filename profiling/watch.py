"""Watch a device between chunks of samples: its clocks, its power, and whether it is throttled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from profiling.measurement import DeviceState
from profiling.nvml import HARMFUL_REASONS

if TYPE_CHECKING:
    from profiling.nvml import DeviceMonitor


@dataclass(slots=True)
class Watch:
    """The guard of the measuring loop: reads the device between chunks and rejects throttled ones."""

    monitor: DeviceMonitor
    sm_clock_hz: list[int] = field(default_factory=list)
    memory_clock_hz: list[int] = field(default_factory=list)
    temperature_c: list[int] = field(default_factory=list)
    power_w: list[float] = field(default_factory=list)
    reasons: set[str] = field(default_factory=set)

    def check(self) -> list[str]:
        """Record the device's state; return the reasons to throw the chunk away."""
        monitor = self.monitor
        readings: tuple[tuple[list[Any], Any], ...] = (
            (self.sm_clock_hz, monitor.sm_clock_hz()),
            (self.memory_clock_hz, monitor.memory_clock_hz()),
            (self.temperature_c, monitor.temperature_c()),
            (self.power_w, monitor.power_w()),
        )
        for seen, value in readings:
            if value is not None:
                seen.append(value)
        reasons = monitor.throttle_reasons() or ()
        self.reasons.update(reasons)
        return [reason for reason in reasons if reason in HARMFUL_REASONS]

    def state(self) -> DeviceState:
        """Return what was seen, with the others on the device."""
        foreign = self.monitor.foreign_processes(own_context=True)
        return DeviceState(
            sm_clock_hz=tuple(self.sm_clock_hz),
            memory_clock_hz=tuple(self.memory_clock_hz),
            temperature_c=tuple(self.temperature_c),
            power_w=tuple(self.power_w),
            throttle_reasons=tuple(sorted(self.reasons)),
            memory_used_bytes=self.monitor.memory_used_bytes(),
            foreign_processes=None if foreign is None else len(foreign),
            foreign_memory_bytes=None
            if foreign is None
            else sum(item.memory_bytes or 0 for item in foreign),
        )
