"""What a sweep is boiled down to while it runs: its best rows, its Pareto front, its distribution.

A reducer keeps a small state. `update` takes a piece of the sweep into one, `merge` makes one of two, and the
order of either does not matter: rows carry their numbers, ties fall to the lower one, and only whole numbers
are added up. So a sweep cut into any parts, on any machines, has the same answer to the last bit.

An axis is a column of a sweep: less is better, or more with a minus in front (`-batch_size`). `device_s` is
a column of reducers alone: seconds x devices / batch, so that its product with the price of a device second
is the price of a sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from costmodel.parallel import Parallel
from costmodel.questions.chunks import COUNTS, join_chunks
from costmodel.questions.sweep_columns import COLUMNS
from costmodel.request import names_of
from hardware_specs.errors import InvalidInputError, UnknownNameError
from hardware_specs.showing import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import pandas as pd

    from costmodel.questions.chunks import Chunk
    from costmodel.questions.sweep_plan import SweepPlan

#: Device-seconds of a sample.
DEVICE_S = "device_s"
#: What an axis may be.
AXES = (*(name for name in COLUMNS if name not in ("bound", "fits")), *COUNTS, DEVICE_S)
#: Arguments that rows may be parted by: those that a piece has one value of.
GROUPS = tuple(name for name in names_of("subject", "setting", "shape") if name not in ("convention", "images"))
#: Rows that a front or a list may have, all groups together: what is kept of a sweep stays small.
MOST_KEPT = 20_000
#: Points of a front that are looked at before all others: most rows fall to one of them.
_CHAMPIONS = 24

State = TypeVar("State")
#: Values of the grouping arguments.
Group = tuple[Any, ...]


class Reducer(Protocol[State]):
    """What `sweep(reduce=...)` takes; an object of one's own may do so as well if it can be pickled."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that `update` reads; nothing else is worked out."""

    def start(self) -> State:
        """Return the state of no row."""

    def update(self, state: State, chunk: Chunk) -> State:
        """Return the state with a piece's rows; the state given may be changed."""

    def merge(self, one: State, other: State) -> State:
        """Return the state of both together; both may be changed."""

    def result(self, state: State, plan: SweepPlan) -> pd.DataFrame:
        """Return the answer."""


class Kept:
    """Rows that were kept of one group: their values by axis, least is best, and their numbers."""

    def __init__(self, points: np.ndarray, rows: np.ndarray) -> None:
        self.points, self.rows = points, rows

    def beside(self, points: np.ndarray, rows: np.ndarray) -> Kept:
        """Return these rows and others."""
        return Kept(np.concatenate([self.points, points]), np.concatenate([self.rows, rows]))

    def only(self, which: np.ndarray) -> Kept:
        """Return some of the rows, by index or by a mask."""
        return Kept(self.points[which], self.rows[which])


@dataclass(frozen=True)
class _Rows:
    """What `top_k` and `pareto` have in common: rows of a sweep, by group."""

    axes: tuple[str, ...]
    by: tuple[str, ...]
    fits: bool

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read."""
        return _read(self.axes, self.fits)

    def start(self) -> dict[Group, Kept]:
        """Return the state of no row."""
        return {}

    def update(self, state: dict[Group, Kept], chunk: Chunk) -> dict[Group, Kept]:
        """Return the state with a piece's rows."""
        found = _points(chunk, self.axes, self.fits)
        if found is not None:
            group = tuple(chunk.fixed.get(name) for name in self.by)
            held = state.get(group)
            state[group] = self._joined(held or Kept(found.points[:0], found.rows[:0]), found)
            self._check(state)
        return state

    def merge(self, one: dict[Group, Kept], other: dict[Group, Kept]) -> dict[Group, Kept]:
        """Return the state of both together."""
        for group, found in other.items():
            held = one.get(group)
            one[group] = found if held is None else self._joined(held, found)
        self._check(one)
        return one

    def result(self, state: dict[Group, Kept], plan: SweepPlan) -> pd.DataFrame:
        """Return the rows as `sweep` gives them, numbered by their place in it, group by group."""
        import pandas as pd

        held = list(state.values())
        rows = np.concatenate([_in_order(each).rows for each in held] or [np.empty(0, np.int64)])
        chunks = plan.at(np.sort(rows).tolist())
        if not chunks:
            return pd.DataFrame()
        table = join_chunks(chunks)
        devices = table["tp"] * table["pp"] * table["dp"]
        table[DEVICE_S] = (table["time_s"] * devices / table["batch_size"]).astype("float64")
        table.index = pd.Index(np.sort(rows), name="row")
        groups = pd.Index(rows)
        return table.loc[groups].rename_axis("row")

    def _joined(self, held: Kept, found: Kept) -> Kept:
        raise NotImplementedError

    def _check(self, state: dict[Group, Kept]) -> None:
        kept = sum(len(each.rows) for each in state.values())
        if kept > MOST_KEPT:
            raise InvalidInputError(
                f"more than {MOST_KEPT} rows would be kept ({len(state)} groups by {', '.join(self.by) or 'none'}); "
                "ask for fewer axes, fewer rows or fewer groups"
            )
