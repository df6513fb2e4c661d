"""Errors of predictions against measurements: relative errors, bias, ranks, leave-one-count-out.

Errors are relative, predicted / measured - 1. The bias is the geometric mean of predicted / measured,
which treats half and double alike; above 1 is too slow a prediction.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.questions.break_evens import knee
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Metrics:
    """The errors of some predictions.

    Attributes:
        count: pairs.
        mape: mean of |predicted / measured - 1|.
        median: median of the same.
        p90: its 90th percentile, interpolated.
        max: its largest.
        bias: geometric mean of predicted / measured.
        coverage: share of the measurements inside the prediction's interval; None without one.
        within_noise: share of the gaps that are no larger than the measurement's own spread; None
            where no spread is known.
    """

    count: int
    mape: float
    median: float
    p90: float
    max: float
    bias: float
    coverage: float | None = None
    within_noise: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


def metrics(
    predicted: Sequence[float],
    measured: Sequence[float],
    *,
    low: Sequence[float] | None = None,
    high: Sequence[float] | None = None,
    noise: Sequence[float | None] | None = None,
) -> Metrics | None:
    """Return the errors of predictions, or None for no pair.

    Args:
        predicted: predictions, positive.
        measured: what was measured, positive, in the same unit.
        low: lower ends of the predictions' intervals.
        high: upper ends of the intervals.
        noise: the spread of each measurement; None where it is not known.

    Raises:
        InvalidInputError: different lengths, or a number that is not positive.

    >>> found = metrics([1.0, 3.0], [2.0, 2.0])
    >>> found.mape, found.max, round(found.bias, 4)   # 0.5 and 0.5; sqrt(0.5 x 1.5)
    (0.5, 0.5, 0.866)
    """
    if len(predicted) != len(measured):
        raise InvalidInputError(f"{len(predicted)} predictions but {len(measured)} measurements")
    if not predicted:
        return None
    guess, truth = np.asarray(predicted, dtype=float), np.asarray(measured, dtype=float)
    if not ((guess > 0).all() and (truth > 0).all()):
        raise InvalidInputError("predictions and measurements must be positive to be compared")
    error = np.abs(guess / truth - 1)
    coverage = None
    if low is not None and high is not None:
        coverage = float(np.mean((truth >= np.asarray(low)) & (truth <= np.asarray(high))))
    known = [
        abs(p - m) <= n
        for p, m, n in zip(predicted, measured, noise or (), strict=noise is not None)
        if n is not None
    ] if noise is not None else []  # fmt: skip
    return Metrics(
        len(predicted),
        float(error.mean()),
        float(np.median(error)),
        float(np.quantile(error, 0.9)),
        float(error.max()),
        float(np.exp(np.log(guess / truth).mean())),
        coverage,
        sum(known) / len(known) if known else None,
    )


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation, or None where one side never changes.

    The correlation of the ranks; equal values share their mean rank.

    >>> rank_correlation([1, 2, 3, 4], [10, 20, 40, 30])
    0.8
    >>> rank_correlation([1, 1], [1, 2]) is None
    True
    """
    if len(first) != len(second):
        raise InvalidInputError(f"{len(first)} values but {len(second)} to compare them with")
    if len(first) < 2:
        return None
    a, b = _ranks(first), _ranks(second)
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return None if scale == 0 else round(float(a @ b) / scale, 12)


def _ranks(values: Sequence[float]) -> np.ndarray[Any, Any]:
    array = np.asarray(values, dtype=float)
    _, inverse, counts = np.unique(array, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    means: np.ndarray[Any, Any] = ends - (counts - 1) / 2
    return means[inverse]


@dataclass(frozen=True, slots=True)
class LeaveOneOut:
    """Errors at each token count after scaling by the other counts.

    Attributes:
        counts: token counts left out in turn.
        mape: mean error over them.
        max: the largest.
        worst_count: the token count it belongs to.
    """

    counts: int
    mape: float
    max: float
    worst_count: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


def leave_one_count_out(
    counts: Sequence[int], predicted: Sequence[float], measured: Sequence[float]
) -> LeaveOneOut | None:
    """Scale the predictions by what the other token counts measured, and test each count in turn.

    The scale is the geometric mean of measured / predicted over all other counts, so what is left is
    the error in the shape of the curve, not in its height. None for fewer than three counts.

    >>> leave_one_count_out([1, 64, 576], [1.0, 2.0, 4.0], [2.0, 4.0, 8.0]).mape  # height only
    0.0
    """
    distinct = sorted(set(counts))
    if len(distinct) < 3:
        return None
    ratio = np.log(np.asarray(measured, dtype=float) / np.asarray(predicted, dtype=float))
    where = np.asarray(counts)
    errors: list[tuple[float, int]] = []
    for count in distinct:
        scale = ratio[where != count].mean()
        errors += [
            (round(abs(math.exp(scale - own) - 1), 15), count) for own in ratio[where == count]
        ]
    worst = max(errors)
    return LeaveOneOut(
        len(distinct), sum(error for error, _ in errors) / len(errors), worst[0], worst[1]
    )


def knee_of(counts: Sequence[int], times_s: Sequence[float]) -> int | None:
    """Return the largest swept count up to which the time is flat, as `costmodel.questions.break_evens.knee`.

    None where there are fewer than three counts.

    Args:
        counts: token counts, ascending.
        times_s: the time at each.

    >>> knee_of([1, 16, 64, 144, 576], [10.0, 10.1, 10.2, 14.0, 40.0])
    64
    """
    if len(counts) < 3:
        return None
    return knee(counts, times_s)
