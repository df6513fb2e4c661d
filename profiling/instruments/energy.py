"""Energy per run: a window of many runs back to back, by the device's counter and by its power.

One run is too short for either way: the counter moves every ten to a hundred milliseconds, power is
averaged over up to a second. So a window holds many repetitions, and what it took is divided by their
number. How often the counter moves is watched before the window, which lasts at least fifty of its
periods, begins when it has just moved and ends with a run in which it moved again. Both ways are
recorded, since they disagree in places (idle power above all); the counter is preferred where it
exists. No way means None, never 0.
"""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from profiling.records.readings import EnergyWindow
from profiling.records.samples import order_statistic

if TYPE_CHECKING:
    from collections.abc import Callable

    from profiling.devices.interface import Clock
    from profiling.instruments.nvml import DeviceMonitor

#: The shortest window, and the longest that a slow counter may ask for.
WINDOW_S, LONGEST_WINDOW_S = 1.5, 6.0
#: Periods of the energy counter in a window: its two ends are then worth at most 2 % each.
COUNTER_PERIODS = 50
IDLE_S = 0.5
_POLL_S = 0.02
#: The energy counter is read this often while its period is looked for.
_COUNTER_POLL_S = 0.002
#: Fewer power samples than this make no integral.
_MIN_SAMPLES = 4


@dataclass(slots=True)
class PowerTrace:
    """Poll a monitor's power in the background while a block runs."""

    monitor: DeviceMonitor
    clock: Clock
    period_s: float = _POLL_S
    times_s: list[float] = field(default_factory=list)
    powers_w: list[float] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> PowerTrace:
        self._thread = threading.Thread(target=self._poll, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _poll(self) -> None:
        while True:
            power_w = self.monitor.power_w()
            if power_w is None:
                return
            self.times_s.append(self.clock.now_s())
            self.powers_w.append(power_w)
            if self._stop.wait(self.period_s):
                return

    def between(self, begin_s: float, end_s: float) -> tuple[list[float], list[float]]:
        """Return times, from `begin_s` on, and powers of the samples taken in a window."""
        inside = [
            (time_s - begin_s, power_w)
            for time_s, power_w in zip(self.times_s, self.powers_w, strict=True)
            if begin_s <= time_s <= end_s
        ]
        return [time_s for time_s, _ in inside], [power_w for _, power_w in inside]


def mean_power_w(times_s: list[float], powers_w: list[float]) -> float | None:
    """Return the time-weighted mean of sampled power by the trapezoidal rule.

    sum (P[i] + P[i+1]) / 2 (t[i+1] - t[i]) / (t[n] - t[0]).

    Args:
        times_s: when each sample was taken, ascending.
        powers_w: the power of each sample.

    >>> mean_power_w([0.0, 1.0, 2.0, 4.0], [100.0, 200.0, 200.0, 100.0])
    162.5
    >>> mean_power_w([0.0], [100.0]) is None
    True
    """
    if len(times_s) < _MIN_SAMPLES or times_s[-1] <= times_s[0]:
        return None
    joules = sum(
        (powers_w[i] + powers_w[i + 1]) / 2 * (times_s[i + 1] - times_s[i])
        for i in range(len(times_s) - 1)
    )
    return joules / (times_s[-1] - times_s[0])


def measure_energy(
    stage: str,
    run: Callable[[], Any],
    monitor: DeviceMonitor,
    clock: Clock,
    *,
    window_s: float = WINDOW_S,
    idle_s: float = IDLE_S,
) -> EnergyWindow:
    """Return the energy of one run, from a window of runs back to back.

    Args:
        stage: what is being run, for the record.
        run: issues one repetition.
        monitor: the interface to the device's energy and power sensors.
        clock: of the device.
        window_s: how long the window lasts at least; a slow counter makes it longer.
        idle_s: how long to watch the idle device before.
    """
    missing = {
        name: monitor.capabilities.get(quantity, "not asked")
        for name, quantity in (("counter_j", "energy"), ("integral_j", "power"))
        if not monitor.capabilities.get(quantity, "").startswith("available")
    }
    if len(missing) == 2:
        # The window would measure nothing.
        return EnergyWindow(
            stage, "unavailable", why_missing={**missing, "energy_j": missing["counter_j"]}
        )
    clock.synchronize()
    idle = PowerTrace(monitor, clock)
    with idle:
        period_s = counter_period_s(monitor, clock, idle_s)
    idle_w = mean_power_w(idle.times_s, idle.powers_w)
    if period_s is not None:
        window_s = max(window_s, min(LONGEST_WINDOW_S, COUNTER_PERIODS * period_s))
    planned = _repetitions(run, clock, window_s)
    trace = PowerTrace(monitor, clock)
    with trace:
        before_j = _next_move(monitor, clock, period_s)
        begun_s = clock.now_s()
        for _ in range(planned):
            run()
        clock.synchronize()
        repetitions, after_j = planned, monitor.energy_j()
        # The window ends with a run in which the counter moved, or the last period would be cut off.
        while period_s is not None and clock.now_s() - begun_s < window_s + 3 * period_s:
            last_j = after_j
            run()
            clock.synchronize()
            repetitions, after_j = repetitions + 1, monitor.energy_j()
            if after_j != last_j:
                break
        ended_s = clock.now_s()
    counter_j = None
    if before_j is not None and after_j is not None:
        counter_j = (after_j - before_j) / repetitions
        if counter_j <= 0.0:
            missing["counter_j"] = "the counter did not move during the window"
            counter_j = None
    elif "counter_j" not in missing:
        missing["counter_j"] = monitor.capabilities["energy"]
    times_s, powers_w = trace.between(begun_s, ended_s)
    mean_w = mean_power_w(times_s, powers_w)
    integral_j = None if mean_w is None else mean_w * (ended_s - begun_s) / repetitions
    if integral_j is None and "integral_j" not in missing:
        missing["integral_j"] = f"{len(powers_w)} power samples make no integral"
    method, energy_j = "unavailable", None
    if counter_j is not None:
        method, energy_j = "nvml_counter", counter_j
    elif integral_j is not None:
        method, energy_j = "power_integral", integral_j
    else:
        missing["energy_j"] = f"{missing['counter_j']}; {missing['integral_j']}"
    return EnergyWindow(
        stage=stage,
        method=method,
        energy_j=energy_j,
        counter_j=counter_j,
        integral_j=integral_j,
        power_w=mean_w,
        idle_power_w=idle_w,
        window_s=ended_s - begun_s,
        repetitions=repetitions,
        power_samples_w=tuple(powers_w),
        power_times_s=tuple(times_s),
        counter_period_s=period_s,
        why_missing=missing,
    )


def counter_period_s(monitor: DeviceMonitor, clock: Clock, watch_s: float) -> float | None:
    """Return the median seconds between two moves of the energy counter, None where it never moves."""
    begun_s = clock.now_s()
    moves_s: list[float] = []
    last_j = monitor.energy_j()
    while clock.now_s() - begun_s < watch_s:
        clock.sleep(_COUNTER_POLL_S if last_j is not None else watch_s)
        now_j = monitor.energy_j()
        if now_j != last_j:
            moves_s.append(clock.now_s())
            last_j = now_j
    gaps = [after - before for before, after in itertools.pairwise(moves_s)]
    return order_statistic(gaps, 0.5) if gaps else None


def _next_move(monitor: DeviceMonitor, clock: Clock, period_s: float | None) -> float | None:
    """Return the energy counter's reading just after it moved; as it is where it never does."""
    first_j = now_j = monitor.energy_j()
    if period_s is None:
        return first_j
    begun_s = clock.now_s()
    while now_j == first_j and clock.now_s() - begun_s < 3 * period_s:
        clock.sleep(_COUNTER_POLL_S)
        now_j = monitor.energy_j()
    return now_j


def _repetitions(run: Callable[[], Any], clock: Clock, window_s: float) -> int:
    clock.synchronize()
    started_s = clock.now_s()
    for _ in range(3):
        run()
    clock.synchronize()
    each_s = (clock.now_s() - started_s) / 3
    return max(3, round(window_s / max(each_s, 1e-6) + 0.5))
