"""Watching a device between chunks of samples: clocks, power, throttling, other users."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiling.instruments.nvml import HARMFUL_REASONS
from profiling.records.readings import DeviceState

if TYPE_CHECKING:
    from collections.abc import Callable

    from profiling.instruments.nvml import DeviceMonitor

#: Columns of /proc/stat's first line that are work: user, nice, system, irq, softirq, stolen.
_BUSY_COLUMNS = (0, 1, 2, 5, 6, 7)


@dataclass(slots=True)
class HostLoad:
    """The share of the machine's processors that other processes use, from Linux's accounting.

    Time that a hypervisor took away counts as somebody else's. The accounts tick in hundredths of a
    second, so shares over less than a few tenths are coarse.

    Args:
        stat: the file of Linux's CPU accounting.
        own_s: seconds of processor time that this process has used.
        clock_s: returns the seconds that have passed.
    """

    stat: Path = Path("/proc/stat")
    own_s: Callable[[], float] = time.process_time
    clock_s: Callable[[], float] = time.perf_counter
    _busy_s: float | None = None
    _used_s: float = 0.0
    _at_s: float = 0.0

    def begin(self) -> None:
        """Start a window."""
        self._busy_s = self._read()
        self._used_s, self._at_s = self.own_s(), self.clock_s()

    def foreign_share(self) -> float | None:
        """Return other processes' work since `begin` as a share of one processor, None if unknown."""
        before, now = self._busy_s, self._read()
        elapsed_s = self.clock_s() - self._at_s
        if before is None or now is None or elapsed_s <= 0:
            return None
        own_s = self.own_s() - self._used_s
        return max(0.0, (now - before - own_s) / elapsed_s)

    def _read(self) -> float | None:
        try:
            fields = self.stat.read_text(encoding="utf-8").partition("\n")[0].split()[1:]
        except OSError:
            return None  # Not Linux.
        ticks = sum(int(fields[column]) for column in _BUSY_COLUMNS if column < len(fields))
        return ticks / os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Watch:
    """The guard of the measuring loop: reads the device between chunks and rejects spoilt ones.

    Args:
        monitor: the interface to the device's sensors.
        load: of the host; None where the device is not the host itself.
        max_foreign_load: reject chunks beside which others used more of one processor than this;
            None rejects none.
        patience_s: seconds to spend on rejected chunks.
    """

    monitor: DeviceMonitor
    load: HostLoad | None = None
    max_foreign_load: float | None = None
    patience_s: float = 10.0
    sm_clock_hz: list[int] = field(default_factory=list)
    memory_clock_hz: list[int] = field(default_factory=list)
    temperature_c: list[int] = field(default_factory=list)
    power_w: list[float] = field(default_factory=list)
    foreign_load: list[float] = field(default_factory=list)
    reasons: set[str] = field(default_factory=set)

    def begin(self) -> None:
        """Start the window of a chunk."""
        if self.load is not None:
            self.load.begin()

    def check(self) -> list[str]:
        """Record the device's state; return the reasons to throw the chunk away."""
        monitor = self.monitor
        share = None if self.load is None else self.load.foreign_share()
        readings: tuple[tuple[list[Any], Any], ...] = (
            (self.sm_clock_hz, monitor.sm_clock_hz()),
            (self.memory_clock_hz, monitor.memory_clock_hz()),
            (self.temperature_c, monitor.temperature_c()),
            (self.power_w, monitor.power_w()),
            (self.foreign_load, None if share is None else round(share, 3)),
        )
        for seen, value in readings:
            if value is not None:
                seen.append(value)
        throttled = monitor.throttle_reasons() or ()
        self.reasons.update(throttled)
        reasons = [reason for reason in throttled if reason in HARMFUL_REASONS]
        limit = self.max_foreign_load
        if share is not None and limit is not None and share > limit:
            reasons.append("foreign-load")
            self.reasons.add("foreign-load")
        return reasons

    def state(self) -> DeviceState:
        """Return the recorded readings, with other processes on the device."""
        foreign = self.monitor.foreign_processes()
        return DeviceState(
            sm_clock_hz=tuple(self.sm_clock_hz),
            memory_clock_hz=tuple(self.memory_clock_hz),
            temperature_c=tuple(self.temperature_c),
            power_w=tuple(self.power_w),
            throttle_reasons=tuple(sorted(self.reasons)),
            foreign_load=tuple(self.foreign_load),
            memory_used_bytes=self.monitor.memory_used_bytes(),
            foreign_processes=None if foreign is None else len(foreign),
            foreign_memory_bytes=None
            if foreign is None
            else sum(item.memory_bytes or 0 for item in foreign),
        )
