"""Rules that end the warm-up and the sampling.

Two-way rule after nvbench: stop when the noise is under a target, or when the noise itself no
longer changes (more samples would not help), or when the time is up; the reason is kept with the
result. Defaults follow nvbench's order of magnitude (ten samples, half a second, fifteen seconds).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from numbers import Real
from statistics import fmean, pstdev
from typing import Literal

from costmodel.kinds import refused
from hardware_specs.errors import InvalidInputError, check_kind
from profiling.records.samples import dispersion, order_statistic

StopReason = Literal["noise-under-target", "noise-stable", "time-out", "sample-count"]


@dataclass(frozen=True, slots=True)
class StopRule:
    """The limits of one measurement.

    Args:
        target_dispersion: IQR over median that is good enough.
        min_samples: never fewer accepted samples, unless the time is up.
        min_time_s: never less accumulated measured time.
        max_time_s: wall time after which it stops whatever the noise.
        max_samples: stop at this many samples.
        stable_window: how many successive noise values must agree.
        stable_spread: their relative standard deviation for `noise-stable`.
    """

    target_dispersion: float = 0.02
    min_samples: int = 10
    min_time_s: float = 0.5
    max_time_s: float = 15.0
    max_samples: int = 200
    stable_window: int = 5
    stable_spread: float = 0.05

    def __post_init__(self) -> None:
        """Reject what is no number, and limits that exclude each other."""
        _check_numbers(self)
        if self.min_samples < 1 or self.max_samples < self.min_samples:
            raise InvalidInputError(
                f"needs 1 <= min_samples <= max_samples, not {self.min_samples} "
                f"and {self.max_samples}"
            )
        if not self.target_dispersion >= 0:
            raise refused("target_dispersion", "a share from 0", self.target_dispersion)
        if not 0 <= self.min_time_s <= self.max_time_s < math.inf:
            raise InvalidInputError(
                "needs 0 <= min_time_s <= max_time_s, both finite, not "
                f"{self.min_time_s} and {self.max_time_s}"
            )


@dataclass(slots=True)
class Stopper:
    """Follow one measurement and say when to stop.

    >>> stopper = Stopper(StopRule(min_samples=4, min_time_s=0.0))
    >>> stopper.decide([1.0, 1.0, 1.0], elapsed_s=3.0) is None
    True
    >>> stopper.decide([1.0, 1.0, 1.0, 1.01], elapsed_s=4.0)
    'noise-under-target'
    """

    rule: StopRule
    noise: list[float] = field(default_factory=list)
    _next_count: int = 4

    def decide(self, samples: list[float], elapsed_s: float) -> StopReason | None:
        """Return why to stop now, or None to go on.

        Args:
            samples: every accepted sample so far, in seconds.
            elapsed_s: wall time since the first one began, rejected samples included.
        """
        rule = self.rule
        enough = len(samples) >= rule.min_samples and sum(samples) >= rule.min_time_s
        noise = dispersion(samples)
        if noise is not None and len(samples) >= self._next_count:
            # Spaced by a quarter more samples each: neighbouring sets are nearly the same set, and
            # their noise would always look stable.
            self.noise.append(noise)
            self._next_count = math.ceil(1.25 * len(samples))
        if enough and noise is not None and noise <= rule.target_dispersion:
            return "noise-under-target"
        if enough and self._noise_is_stable():
            return "noise-stable"
        if len(samples) >= rule.max_samples:
            return "sample-count"
        if elapsed_s >= rule.max_time_s:
            return "time-out"
        return None

    def _noise_is_stable(self) -> bool:
        window = self.noise[-self.rule.stable_window :]
        if len(window) < self.rule.stable_window:
            return False
        mean = fmean(window)
        return mean > 0.0 and pstdev(window) <= self.rule.stable_spread * mean


@dataclass(frozen=True, slots=True)
class WarmUpRule:
    """When the warm-up ends: steady over two successive groups of runs, or out of time.

    Args:
        min_time_s: clocks and caches need this long even when the time looks steady.
        max_time_s: go on unsteady after this long; the record says so.
        group: runs per compared group.
        tolerance: relative difference of two group medians that counts as steady.
    """

    min_time_s: float = 3.0
    max_time_s: float = 10.0
    group: int = 3
    tolerance: float = 0.02

    def __post_init__(self) -> None:
        """Reject what is no number."""
        _check_numbers(self)

    def is_steady(self, samples: list[float]) -> bool:
        """Return whether the last two groups of runs agree.

        >>> WarmUpRule(group=2).is_steady([9.0, 1.0, 1.0, 1.0, 1.01])
        True
        >>> WarmUpRule(group=2).is_steady([9.0, 3.0, 1.0])
        False
        """
        if len(samples) < 2 * self.group:
            return False
        before = order_statistic(samples[-2 * self.group : -self.group], 0.5)
        after = order_statistic(samples[-self.group :], 0.5)
        return abs(after - before) <= self.tolerance * before


def _check_numbers(rule: StopRule | WarmUpRule) -> None:
    for each in fields(rule):
        check_kind(each.name, getattr(rule, each.name), Real, "a number")
