from __future__ import annotations

import pytest

from hardware_specs.errors import InvalidInputError
from profiling.measuring.stopping import Stopper, StopRule, WarmUpRule


def _run(rule: StopRule, values: list[float], step_s: float = 0.1) -> tuple[str | None, int]:
    stopper, samples = Stopper(rule), []
    for index, value in enumerate(values):
        samples.append(value)
        reason = stopper.decide(samples, elapsed_s=step_s * (index + 1))
        if reason is not None:
            return reason, len(samples)
    return None, len(samples)


def test_quiet_samples_stop_at_the_minimum() -> None:
    assert _run(StopRule(min_samples=10, min_time_s=0.0), [1.0] * 50) == ("noise-under-target", 10)


def test_a_measured_time_is_waited_for() -> None:
    # 0.5 s of measured time at 0.02 s each are 25 samples.
    reason, count = _run(StopRule(min_samples=4, min_time_s=0.5), [0.02] * 50)
    assert reason == "noise-under-target"
    assert count in (25, 26)


def test_steady_noise_stops_when_more_samples_would_not_help() -> None:
    noisy = [1.0, 2.0] * 200
    reason, count = _run(StopRule(min_time_s=0.0, max_time_s=1e9, max_samples=400), noisy)
    assert reason == "noise-stable"
    # Five noise values, each over a quarter more samples than the last, take at least ten.
    assert 10 <= count <= 60


def test_time_and_count_end_what_noise_does_not() -> None:
    wild = [float(1 + (7 * index) % 13) ** 2 for index in range(300)]
    strict = StopRule(min_time_s=0.0, max_time_s=2.0, stable_spread=0.0, target_dispersion=1e-9)
    assert _run(strict, wild) == ("time-out", 20)
    capped = StopRule(min_time_s=0.0, max_samples=15, stable_spread=0.0, target_dispersion=1e-9)
    assert _run(capped, wild) == ("sample-count", 15)


def test_few_slow_samples_time_out() -> None:
    assert _run(StopRule(max_time_s=15.0), [10.0, 10.1], step_s=10.0) == ("time-out", 2)


def test_warm_up_ends_only_when_two_groups_agree() -> None:
    rule = WarmUpRule(group=3, tolerance=0.02)
    assert not rule.is_steady([5.0, 1.0, 1.0, 1.0])
    assert not rule.is_steady([3.0, 3.0, 3.0, 1.0, 1.0, 1.0])
    assert rule.is_steady([9.0, 1.0, 1.0, 1.0, 1.01, 1.0, 0.99])


@pytest.mark.parametrize(
    "limits",
    [{"min_samples": 0}, {"min_samples": 9, "max_samples": 8}, {"min_time_s": 99.0},
     {"target_dispersion": float("nan")}],
)  # fmt: skip
def test_limits_that_exclude_each_other_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError):
        StopRule(**limits)  # type: ignore[arg-type]
