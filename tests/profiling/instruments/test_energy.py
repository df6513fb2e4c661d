"""Energy from a simulated counter and from a replayed power trace."""

from __future__ import annotations

import time
from typing import Any

import pytest

from profiling.devices.cpu import HostClock
from profiling.instruments.energy import mean_power_w, measure_energy
from profiling.instruments.nvml import AVAILABLE, AbsentMonitor

#: Seconds and watts of one prefill loop: ramp, plateau at the power limit, ramp down, idle. The shape
#: of a trace polled every 100 ms.
TRACE_S = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
TRACE_W = [88.0, 240.0, 655.0, 698.0, 701.0, 699.0, 700.0, 702.0, 697.0, 310.0, 121.0]


class Meter(AbsentMonitor):
    """A device that draws a constant power and counts it, as far as it is allowed to."""

    def __init__(self, *, counter: bool = True, power: bool = True, watts: float = 200.0) -> None:
        super().__init__("NotSupported: simulated")
        self.watts, self.started = watts, time.perf_counter()
        self.frozen = False
        known = {"energy": counter, "power": power}
        self.capabilities = {
            name: AVAILABLE if known.get(name) else reason
            for name, reason in self.capabilities.items()
        }

    def energy_j(self) -> float | None:  # type: ignore[override]
        if self.capabilities["energy"] != AVAILABLE:
            return None
        return 50.0 if self.frozen else 50.0 + self.watts * (time.perf_counter() - self.started)

    def power_w(self) -> float | None:  # type: ignore[override]
        return self.watts if self.capabilities["power"] == AVAILABLE else None


def _window(meter: Meter) -> Any:
    return measure_energy(
        "prefill", lambda: time.sleep(0.005), meter, HostClock(), window_s=0.15, idle_s=0.1
    )


def test_both_ways_agree_on_a_constant_load() -> None:
    window = _window(Meter())
    assert window.method == "nvml_counter"
    assert window.energy_j == window.counter_j
    # 200 W for about 5 ms a run; both ways see the same window.
    assert window.counter_j == pytest.approx(window.integral_j, rel=0.05)
    assert window.energy_j == pytest.approx(200.0 * window.window_s / window.repetitions, rel=0.05)
    assert window.idle_power_w == pytest.approx(200.0)
    assert window.power_w == pytest.approx(200.0)
    assert len(window.power_samples_w) == len(window.power_times_s) >= 4
    assert window.why_missing == {}


def test_without_a_counter_power_is_integrated() -> None:
    window = _window(Meter(counter=False))
    assert window.method == "power_integral"
    assert window.counter_j is None
    assert window.energy_j == window.integral_j
    assert window.why_missing == {"counter_j": "NotSupported: simulated"}


def test_without_power_the_counter_is_enough() -> None:
    window = _window(Meter(power=False))
    assert window.method == "nvml_counter"
    assert window.integral_j is window.power_w is window.idle_power_w is None
    assert "integral_j" in window.why_missing


def test_without_either_nothing_is_run_and_nothing_is_zero() -> None:
    runs: list[int] = []
    window = measure_energy(
        "total", lambda: runs.append(1), Meter(counter=False, power=False), HostClock()
    )
    assert runs == []
    assert window.method == "unavailable"
    assert window.energy_j is window.counter_j is window.integral_j is window.power_w is None
    assert window.why_missing["energy_j"] == "NotSupported: simulated"


def test_a_counter_that_stands_still_is_no_measurement() -> None:
    meter = Meter()
    meter.frozen = True
    window = _window(meter)
    assert window.counter_j is None
    assert window.method == "power_integral"
    assert "did not move" in window.why_missing["counter_j"]


def test_a_recorded_trace_integrates_to_its_energy() -> None:
    # Trapezia of 0.1 s: (half the ends + the rest) * 0.1 = (104.5 + 5402) * 0.1 = 550.65 J in 1 s.
    assert mean_power_w(TRACE_S, TRACE_W) == pytest.approx(550.65)


def test_too_few_samples_make_no_integral() -> None:
    assert mean_power_w(TRACE_S[:3], TRACE_W[:3]) is None
    assert mean_power_w([1.0] * 5, [100.0] * 5) is None
