"""The model-specific tier: corrections of the law for single weight matrices that were measured.

A model has a handful of weight matrices, and sixteen row counts of each take seconds to measure.
Where the library picks a kernel the law does not expect, the measured ratio says so. Between the
measured rows the ratio is interpolated along the law's own time, so that the stairs stay stairs.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.calibration.parameters import ShapeCurve

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from costmodel.calibration.tables import Group

#: Row counts worth measuring of a model's own weight matrices: the ends of the stairs that tiles of
#: 64 and 128 rows make, two inside the uneven one above 128, and the long flight above.
MODEL_ROWS = (1, 16, 64, 80, 128, 160, 192, 256, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192)
#: A weight matrix gets a curve from this many measured row counts on.
MIN_ROWS = 6
#: A table with more weight matrices than this is a general one: curves would only fill the file.
MOST_SHAPES = 32
#: Share of a measured ratio that is believed. On public A100 and H100 tables rows left out are
#: predicted best with 0.75 to 0.85: single measurements scatter by 3 to 5 %.
SHARE = 0.8


def shapes_with_rows(group: Group) -> list[tuple[int, int]]:
    """Return the weight matrices (n, k) of a group that have enough row counts for a curve."""
    pairs: dict[tuple[int, int], set[float]] = {}
    for m, n, k in zip(group.sizes["m"], group.sizes["n"], group.sizes["k"], strict=True):
        pairs.setdefault((int(n), int(k)), set()).add(float(m))
    return [pair for pair, rows in pairs.items() if len(rows) >= MIN_ROWS]


class Knots:
    """A curve along the law's own time.

    Args:
        curve: the measured ratios.
        law_times: the law's seconds at the curve's rows, shape (rows,).
    """

    def __init__(self, curve: ShapeCurve, law_times: Any) -> None:
        # Rows on one plateau of the law share one abscissa up to rounding, and their mean ratio.
        position = np.round(np.log(law_times), 6)
        self._x, inverse = np.unique(position, return_inverse=True)
        sums = np.bincount(inverse.ravel(), weights=np.asarray(curve.log_ratios))
        self._y = sums / np.bincount(inverse.ravel())
        self._at: list[float] = self._x.tolist()
        self._ratios: list[float] = self._y.tolist()

    def corrected(self, time_s: Any) -> Any:
        """Return the law's times multiplied by the curve's ratio there.

        Args:
            time_s: the law's seconds at rows of the curve's weight matrix.
        """
        if isinstance(time_s, float):
            return time_s * math.exp(self._log_ratio(math.log(time_s))) if time_s else 0.0
        # What never runs takes no time, whatever its ratio.
        position = np.maximum(time_s, 1e-30)
        np.log(position, out=position)
        ratio = np.exp(np.interp(position, self._x, self._y))
        ratio *= time_s
        return ratio

    def _log_ratio(self, position: float) -> float:
        """Return what `numpy.interp` does, which takes ten times as long for one number."""
        at, ratios = self._at, self._ratios
        above = bisect_right(at, position)
        if above == 0:
            return ratios[0]
        if above == len(at):
            return ratios[-1]
        slope = (ratios[above] - ratios[above - 1]) / (at[above] - at[above - 1])
        return slope * (position - at[above - 1]) + ratios[above - 1]


def build_curves(
    group: Group,
    shapes: list[tuple[int, int]],
    time_s: Callable[[Group], Any],
    rows: Collection[int] | None = None,
) -> tuple[ShapeCurve, ...]:
    """Return the curves of weight matrices: `SHARE` of ln(measured / law) at each measured row.

    Args:
        group: measured points that hold the shapes.
        shapes: (n, k) pairs.
        time_s: the fitted law.
        rows: the row counts to keep; None keeps all.
    """
    if not shapes:
        return ()
    if rows is not None:
        group = group.take(np.isin(group.sizes["m"], list(rows)))
    raw = []
    for n, k in shapes:
        part = group.take((group.sizes["n"] == n) & (group.sizes["k"] == k))
        part = part.take(np.argsort(part.sizes["m"]))
        law = np.asarray(time_s(part))
        raw.append((n, k, part.sizes["m"], np.log(part.time_s / law)))
    return tuple(
        ShapeCurve(n, k, tuple(map(float, at)), tuple((SHARE * ratios).tolist()))
        for n, k, at, ratios in raw
    )
