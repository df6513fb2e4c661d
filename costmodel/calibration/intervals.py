"""Prediction intervals: quantiles of errors on held-out points, and the share of points they cover.

Products of few rows err more than those of many, whose time nears a peak whatever kernel the library
picks: around its median, ln(measured / predicted) spreads as (1024 / m)^g, with m between 16 and 1,024.
The quantiles are those of 1,024 rows and more, and g is fitted to held-out errors, so that points of
other rows than a model's say the right thing of it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

#: Rows that the quantiles are of, and those below which the spread grows no more.
ROWS, FEWEST_ROWS = 1024, 16
#: Exponents g that are tried, and what g = 1 has to be worth in log likelihood; others g^2 of it.
GROWTHS = np.linspace(0.0, 1.0, 51)
DOUBT = 50.0
#: Levels at which held-out errors are kept; what lies between is interpolated.
LEVELS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99)


def error_quantiles(ratios: Any) -> tuple[tuple[float, float], ...]:
    """Return (level, log ratio) pairs whose interval holds a new point with the level's chance.

    The i-th of n sorted ratios stands at level i / (n + 1), as conformal prediction has it. Beyond
    the outermost the tails are a normal distribution's, scaled to the extremes, so that few points
    make a wide interval.

    Args:
        ratios: ln(measured / predicted) of points the fit did not see, shape (points,).

    >>> error_quantiles([0.3, 0.1, 0.2])[5]
    (0.5, 0.2)
    """
    from statistics import NormalDist

    ordered = np.sort(np.asarray(ratios, dtype=float))
    count = len(ordered)
    at = np.arange(1, count + 1) / (count + 1)
    values = np.interp(LEVELS, at, ordered)
    middle = float(np.median(ordered))
    normal = NormalDist().inv_cdf
    for i, level in enumerate(LEVELS):
        if level < at[0] or level > at[-1]:
            end = 0 if level < at[0] else -1
            if count > 1:
                scale = normal(level) / normal(float(at[end]))
                values[i] = middle + (ordered[end] - middle) * scale
    values = np.maximum.accumulate(values)
    return tuple((level, float(value)) for level, value in zip(LEVELS, values, strict=True))


def spread_at(rows: Any, growth: float) -> Any:
    """Return how much wider errors spread than at 1,024 rows and more, a number or an array.

    >>> spread_at(64, 0.5), spread_at(1, 0.5), spread_at(2048, 0.5)
    (4.0, 8.0, 1.0)
    """
    spreads = _spreads(growth)
    if isinstance(rows, np.ndarray):
        found: np.ndarray = spreads.take(rows.astype(np.intp), mode="clip")
        return found
    return float(spreads.item(min(int(rows), ROWS)))


@lru_cache(maxsize=64)
def _spreads(growth: float) -> np.ndarray:
    """Return the spread at each row count up to 1,024, shape (1025,): a power takes long over a sweep."""
    spreads: np.ndarray = (ROWS / np.maximum(np.arange(ROWS + 1), FEWEST_ROWS)) ** growth
    return spreads


def fitted_growth(ratios: np.ndarray, rows: np.ndarray) -> float:
    """Return the exponent g that Laplace-distributed errors are likeliest with.

    Args:
        ratios: ln(measured / predicted) of products the fit did not see, shape (points,).
        rows: their row counts, shape (points,).
    """
    beside = np.abs(ratios - np.median(ratios))

    def cost(growth: float) -> float:
        spread = spread_at(rows, growth)
        scale = max(float(np.mean(beside / spread)), 1e-12)
        return float(len(ratios) * np.log(scale) + np.log(spread).sum() + DOUBT * growth**2)

    return float(min(GROWTHS.tolist(), key=cost))


def share_inside(reference: Any, points: Any) -> float:
    """Return the share of points within the 90 % interval that a reference gives."""
    quantiles = dict(error_quantiles(reference))
    return float(np.mean((points >= quantiles[0.05]) & (points <= quantiles[0.95])))


def cross_coverage(ratios: Any, parts: list[np.ndarray]) -> float:
    """Return the share of points inside the 90 % interval that the other folds give.

    Args:
        ratios: log ratios out of fold, shape (points,).
        parts: the indices of the folds.
    """
    hits = 0.0
    for part in parts:
        others = np.ones(len(ratios), dtype=bool)
        others[part] = False
        hits += share_inside(ratios[others], ratios[part]) * len(part)
    return hits / len(ratios)
