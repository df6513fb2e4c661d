"""Statistics of raw samples, reported only where the sample count supports them.

Every record keeps its raw samples, and these figures are computed on request. A percentile is refused
(None) when there are too few samples to support it, so that no table ever prints a p99 of thirty
repetitions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: A tail of probability 1-q needs this many samples per unit of 1/(1-q). MLPerf's early-stopping
#: floors (64 samples for p90, 662 for p99) rounded up to one law: 67 and 662.
SAMPLES_PER_TAIL = 6.62


def required_samples(q: float) -> int:
    """Return how many samples the quantile q needs before it may be reported.

    n = ceil(6.62 / min(q, 1 - q)) outside the middle, 3 for the median.
    Source: MLPerf's early-stopping floors, p90 from 64 and p99 from 662 samples.

    Raises:
        InvalidInputError: q is not inside (0, 1).

    >>> required_samples(0.5), required_samples(0.9), required_samples(0.99)
    (3, 67, 662)
    """
    if not 0.0 < q < 1.0:
        raise InvalidInputError(f"a quantile lies inside (0, 1), not at {q}")
    if q == 0.5:
        return 3
    # The tiny subtraction keeps 1 - 0.99 = 0.010000000000000009 from costing a sample.
    return math.ceil(SAMPLES_PER_TAIL / min(q, 1.0 - q) - 1e-9)


def order_statistic(samples: Sequence[float], q: float) -> float:
    """Return the quantile q in [0, 1] by linear interpolation between order statistics.

    x[(n-1) q] over the sorted samples (type 7, as numpy's default).

    Raises:
        InvalidInputError: there is no sample.

    >>> order_statistic([4.0, 1.0, 2.0, 3.0], 0.5)
    2.5
    """
    if not samples:
        raise InvalidInputError("no samples: nothing was accepted, so there is no quantile")
    ordered = sorted(samples)
    position = (len(ordered) - 1) * q
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def quantile(samples: Sequence[float], q: float) -> float | None:
    """Return the quantile q, or None when the sample count does not support it.

    >>> quantile([1.0, 2.0, 3.0], 0.5)
    2.0
    >>> quantile([1.0] * 30, 0.9) is None
    True
    """
    return order_statistic(samples, q) if len(samples) >= required_samples(q) else None


def dispersion(samples: Sequence[float]) -> float | None:
    """Return the interquartile range over the median, or None for fewer than four samples.

    (x[0.75] - x[0.25]) / x[0.5], dimensionless. A dispersion, not a percentile: it steers the
    stopping rule, so it is computed from few samples on purpose.

    >>> dispersion([1.0, 2.0, 3.0, 4.0, 5.0])
    0.6666666666666666
    >>> dispersion([1.0, 1.0]) is None
    True
    """
    if len(samples) < 4:
        return None
    median = order_statistic(samples, 0.5)
    if median <= 0.0:
        return None
    return (order_statistic(samples, 0.75) - order_statistic(samples, 0.25)) / median


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures a table prints for one list of samples; None where the count supports none."""

    count: int
    median_s: float | None
    mean_s: float | None
    min_s: float | None
    p20_s: float | None
    p80_s: float | None
    p90_s: float | None
    dispersion: float | None


def summarise(samples: Sequence[float]) -> Summary:
    """Return the summary of raw samples in seconds, of which there may be none.

    The median of fewer than three samples is still given, as the middle of what there is, since
    `count` stands beside it; p20, p80 and p90 wait for the sample count that supports them.

    >>> summarise([2.0, 1.0, 3.0]).median_s
    2.0
    >>> summarise([]).median_s is None
    True
    """
    if not samples:
        return Summary(0, None, None, None, None, None, None, None)
    return Summary(
        count=len(samples),
        median_s=order_statistic(samples, 0.5),
        mean_s=math.fsum(samples) / len(samples),
        min_s=min(samples),
        p20_s=quantile(samples, 0.2),
        p80_s=quantile(samples, 0.8),
        p90_s=quantile(samples, 0.9),
        dispersion=dispersion(samples),
    )
