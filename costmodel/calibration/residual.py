"""What the law leaves of measured products: the library's choice of kernels, smoothed over measured points.

With r(x) = ln(measured / law) at measured products X = (m, n, k), a product x is corrected by

    exp(sum over i of w_i exp(-d(x, X_i))),    w = (K + NOISE I)^-1 r(X),    K_ij = exp(-d(X_i, X_j))

d adds up |ln m / m'| / 6, |ln n / n'| / 6, |ln k / k'| / 2.5 and, for four tiles, how much the idle share
of the last wave differs. It is kriging with a Laplace kernel, and falls back to the law far from all
points. The lengths are rounded from a likelihood fit on public A100 and H100 products; doubling or halving
one changes the error of 512 points by a fiftieth. Rows beyond 64 count as the next multiple of 64.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, nan
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Distances in ln m, ln n and ln k over which the correlation falls to 1 / e.
LENGTHS = (6.0, 6.0, 2.5)
#: Tiles whose waves decide, and the distance in the logarithm of their last wave's idle share.
WAVES = ((256, 128, 0.35), (128, 256, 0.35), (128, 128, 0.55), (64, 64, 1.1))
#: Variance of a single measurement over that of the residual.
NOISE = 0.1
#: No choice of kernels costs more than this factor's logarithm; what lies beyond is an interruption.
MOST = 0.5
#: Points that are kept at most.
MOST_POINTS = 512
#: Rows that are one step above as many, and rows beyond which nothing changes.
STEP, MOST_ROWS = 64, 1 << 20
#: Steps worked out at once.
AHEAD = 8
_CHUNK = 1024


@dataclass(frozen=True)
class Residual:
    """The correction of the law between measured products.

    Attributes:
        m: rows of every product.
        n: output features.
        k: input features.
        weights: w.
    """

    m: tuple[float, ...]
    n: tuple[float, ...]
    k: tuple[float, ...]
    weights: tuple[float, ...]
    _features: dict[int, tuple[np.ndarray, np.ndarray]] = field(
        init=False, compare=False, repr=False, default_factory=dict, hash=False
    )

    def log_ratio(self, m: Any, n: Any, k: Any, units: int) -> np.ndarray:
        """Return the correction's logarithm at arrays of shapes, shape (points,)."""
        held = self._features.get(units)
        if held is None:
            at = _features(np.array(self.m), np.array(self.n), np.array(self.k), units)
            held = self._features[units] = at, np.array(self.weights)
        at, weights = held
        # Rows of a sweep differ in batch and output, and their products often do not.
        (m, n, k), where = _distinct(_stepped(m), n, k)
        asked = _features(m, n, k, units)
        out = np.empty(len(asked))
        for start in range(0, len(asked), _CHUNK):
            part = slice(start, start + _CHUNK)
            # Not a matrix product, whose last bit depends on how many rows there are.
            out[part] = (np.exp(-_distance(asked[part], at)) * weights).sum(axis=1)
        found: np.ndarray = out[where]
        return found


def fit_residual(sizes: Mapping[str, np.ndarray], ratios: np.ndarray, units: int) -> Residual:
    """Return the correction that measured products ask for.

    Args:
        sizes: m, n and k of the products; only the first `MOST_POINTS` are used.
        ratios: ln(measured / law) of each.
        units: SMs.
    """
    m, n, k = (sizes[name][:MOST_POINTS] for name in "mnk")
    at = _features(m, n, k, units)
    kernel = np.exp(-_distance(at, at))
    kernel[np.diag_indices(len(at))] += NOISE
    weights = np.linalg.solve(kernel, np.clip(ratios[:MOST_POINTS], -MOST, MOST))
    return Residual(*(tuple(each.tolist()) for each in (m, n, k, weights)))


class ResidualSteps:
    """The correction of one weight matrix as a table over its rows, filled where it is asked for."""

    def __init__(self, residual: Residual, n: float, k: float, units: int) -> None:
        self._residual, self._shape, self._units = residual, (n, k), units
        self._table = np.full(2 * STEP, np.nan)

    def factor(self, m: Any) -> Any:
        """Return the factor on the law's time at m rows, a number or an array of them."""
        if not isinstance(m, np.ndarray):
            if m > MOST_ROWS:
                m = MOST_ROWS
            at = ceil(m) if m <= STEP else STEP - 1 + ceil(m / STEP)
            found = self._table.item(at) if at < len(self._table) else nan
            if found != found:
                # The next row counts are likely asked for next, and numpy takes as long for one.
                self._fill(np.arange(at, at + AHEAD))
                found = self._table.item(at)
            return found
        m = np.minimum(m, MOST_ROWS)
        steps = np.where(m <= STEP, np.ceil(m), STEP - 1 + np.ceil(m / STEP)).astype(np.intp)
        found = self._table.take(steps, mode="clip")
        if steps.size and (steps.max() >= len(self._table) or np.isnan(found).any()):
            self._fill(np.unique(steps))
            found = self._table.take(steps)
        return found

    def _fill(self, steps: np.ndarray) -> None:
        missing = int(steps.max()) + 1 - len(self._table)
        if missing > 0:
            more = np.full(max(missing, len(self._table)), np.nan)
            self._table = np.concatenate([self._table, more])
        rows = np.where(steps <= STEP, np.maximum(steps, 1), (steps - STEP + 1) * STEP)
        full = np.ones(len(rows))
        n, k = self._shape
        found = self._residual.log_ratio(rows.astype(float), n * full, k * full, self._units)
        self._table[steps] = np.exp(found)


def _features(m: Any, n: Any, k: Any, units: int) -> np.ndarray:
    """Return the coordinates whose absolute differences add up to a distance, shape (points, 7)."""
    m = _stepped(m)
    columns = [np.log(size) / length for size, length in zip((m, n, k), LENGTHS, strict=True)]
    for rows, wide, length in WAVES:
        waves = np.ceil(m / rows) * np.ceil(n / wide) / units
        columns.append(np.log(np.ceil(waves) / waves) / length)
    return np.stack(columns, axis=1)


def _stepped(m: Any) -> Any:
    """Return the rows that as many count as."""
    m = np.minimum(m, MOST_ROWS)
    return np.where(m <= STEP, np.ceil(m), STEP * np.ceil(m / STEP))


def _distinct(*columns: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the distinct rows of some columns, and which of them each row is."""
    order = np.lexsort(columns)
    new = np.zeros(len(order), dtype=bool)
    new[:1] = True
    for column in columns:
        ordered = column[order]
        new[1:] |= ordered[1:] != ordered[:-1]
    where = np.empty(len(order), dtype=np.intp)
    where[order] = np.cumsum(new) - 1
    return [column[order[new]] for column in columns], where


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    total = np.zeros((len(a), len(b)))
    for mine, other in zip(a.T, b.T, strict=True):
        total += np.abs(mine[:, None] - other)
    return total
