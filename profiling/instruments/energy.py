"""Energy per run: a window of many runs back to back, by the device's counter and by its power.

One run is too short for either way: the counter moves every ten milliseconds or slower, power is
averaged over up to a second. So a window holds enough repetitions to last one or two seconds, and
what it took is divided by their number. Both ways are recorded, since they disagree in places
(idle power above all); the counter is preferred where it exists. No way means None, never 0.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from profiling.records.measurement import EnergyWindow

if TYPE_CHECKING:
    from collections.abc import Callable

    from profiling.instruments.nvml import DeviceMonitor

#: At least a hundred periods of the energy counter.
WINDOW_S = 1.5
IDLE_S = 0.5
_POLL_S = 0.02
#: Fewer power samples than this make no integral.
_MIN_SAMPLES = 4


@dataclass(slots=True)
class PowerTrace:
    """Poll a monitor's power in the background while a block runs.

    Args:
        monitor: the interface to the device's sensors.
        period_s: seconds between two samples.
    """

    monitor: DeviceMonitor
    period_s: float = _POLL_S
    times_s: list[float] = field(default_factory=list)
    powers_w: list[float] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> PowerTrace:
        started = time.perf_counter()
        self._thread = threading.Thread(target=self._poll, args=(started,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _poll(self, started: float) -> None:
        while True:
            power_w = self.monitor.power_w()
            if power_w is None:
                return
            self.times_s.append(time.perf_counter() - started)
            self.powers_w.append(power_w)
            if self._stop.wait(self.period_s):
                return

    @property
    def mean_w(self) -> float | None:
        """Return the time-weighted mean power, None with too few samples."""
        return mean_power_w(self.times_s, self.powers_w)


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
    synchronize: Callable[[], None],
    *,
    window_s: float = WINDOW_S,
    idle_s: float = IDLE_S,
) -> EnergyWindow:
    """Return the energy of one run, from a window of runs back to back.

    Args:
        stage: what is being run, for the record.
        run: issues one repetition.
        monitor: the interface to the device's energy and power sensors.
        synchronize: blocks until the device has finished.
        window_s: how long the window lasts at least.
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
    synchronize()
    idle = PowerTrace(monitor)
    with idle:
        time.sleep(idle_s)
    repetitions = _repetitions(run, synchronize, window_s)
    trace = PowerTrace(monitor)
    with trace:
        before_j, started = monitor.energy_j(), time.perf_counter()
        for _ in range(repetitions):
            run()
        synchronize()
        length_s = time.perf_counter() - started
        after_j = monitor.energy_j()
    counter_j = None
    if before_j is not None and after_j is not None:
        counter_j = (after_j - before_j) / repetitions
        if counter_j <= 0.0:
            missing["counter_j"] = "the counter did not move during the window"
            counter_j = None
    elif "counter_j" not in missing:
        missing["counter_j"] = monitor.capabilities["energy"]
    mean_w = trace.mean_w
    integral_j = None if mean_w is None else mean_w * length_s / repetitions
    if integral_j is None and "integral_j" not in missing:
        missing["integral_j"] = f"{len(trace.powers_w)} power samples make no integral"
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
        idle_power_w=idle.mean_w,
        window_s=length_s,
        repetitions=repetitions,
        power_samples_w=tuple(trace.powers_w),
        power_times_s=tuple(trace.times_s),
        why_missing=missing,
    )


def _repetitions(run: Callable[[], Any], synchronize: Callable[[], None], window_s: float) -> int:
    synchronize()
    started = time.perf_counter()
    for _ in range(3):
        run()
    synchronize()
    each_s = (time.perf_counter() - started) / 3
    return max(3, round(window_s / max(each_s, 1e-6) + 0.5))
