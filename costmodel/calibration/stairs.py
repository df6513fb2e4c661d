"""The tile law of one weight matrix as a table over its rows: an index in place of the minimum over tiles.

A model has a dozen weight matrices and asks for their products at one count of rows after the other.
T_math steps once per tile height: it is the same for all rows of a step, except where the inner
dimension may be split, whose partial sums grow with every row. So each (n, k) has two arrays, filled as
far as they are asked for:

    fine[m]                 for m <= `last`, the most rows at which any tile leaves room for a split
    coarse[ceil(m / step)]  above
"""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np

from costmodel.calibration.gemm import FAMILIES, SPLIT_DEPTH, Finish, TileLaw, tiled_s

#: Entries that a table starts with; it doubles as it grows.
FIRST_ENTRIES = 128
#: Rows beyond which nothing is stored.
MOST_ROWS = 1 << 20


class Stairs:
    """The seconds of an activation's product with one weight matrix, by rows."""

    def __init__(self, law: TileLaw, n: float, k: float) -> None:
        self._law, self._n, self._k = law, n, k
        self._finish = Finish(law, n, k, 1)
        rule = FAMILIES[law.family]
        self._step = min(rows for rows, _ in rule.tiles)
        self._last = 0
        if rule.max_split > 1 and k >= 2 * SPLIT_DEPTH:
            self._last = max(
                rows * (law.device.units // 2 // ceil(n / columns)) for rows, columns in rule.tiles
            )
        self._fine = self._coarse = np.empty(0)

    def time_s(self, m: Any) -> Any:
        """Return the predicted seconds at m rows, a number or an array of them."""
        return self._finish.time_s(m, self._math_s(m))

    def _math_s(self, m: Any) -> Any:
        if not isinstance(m, np.ndarray):
            if m > MOST_ROWS:
                return self._direct(np.array([float(m)])).item()
            if 0 < m <= self._last:
                at = ceil(m)
                if at >= len(self._fine):
                    self._fine = self._grown(self._fine, min(at, self._last), 1)
                return self._fine.item(at)
            at = ceil(max(m, 0) / self._step)
            if at >= len(self._coarse):
                self._coarse = self._grown(self._coarse, at, self._step)
            return self._coarse.item(at)
        most = m.max(initial=0)
        if most > MOST_ROWS:
            return self._direct(m.ravel()).reshape(m.shape)
        if most > self._last or not self._last:
            if most / self._step >= len(self._coarse) - 1:
                self._coarse = self._grown(self._coarse, ceil(most / self._step), self._step)
            found = self._coarse.take(np.ceil(m / self._step).astype(np.intp), mode="clip")
            few = m <= self._last if self._last else None
        else:
            found, few = np.empty(m.shape), np.ones(m.shape, dtype=bool)
        if few is not None and np.any(few):
            asked = min(most, self._last)
            if asked >= len(self._fine) - 1:
                self._fine = self._grown(self._fine, min(int(asked) + 1, self._last), 1)
            # Rows that are negative or no number keep an entry here; `combine` refuses them.
            rows = np.minimum(np.ceil(m), self._last).astype(np.intp)
            found = np.where(few, self._fine.take(rows, mode="clip"), found)
        return found

    def _grown(self, table: np.ndarray, most: int, step: int) -> np.ndarray:
        held = len(table)
        # A step is stored at its last row; no row at all costs nothing.
        rows = step * np.arange(held, max(most + 2, 2 * held, FIRST_ENTRIES), dtype=float)
        return np.concatenate([table, self._direct(np.maximum(rows, 1.0))])

    def _direct(self, rows: np.ndarray) -> np.ndarray:
        full = np.ones(len(rows))
        found: np.ndarray = tiled_s(self._law, rows, self._n * full, self._k * full, full)
        return found
