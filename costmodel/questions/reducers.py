"""What a sweep is boiled down to while it runs: its best rows, its Pareto front, its distribution.

A reducer makes a small state of each part of a sweep, and one of two states; the order does not matter: rows
carry their numbers, ties fall to the lower one, and only whole numbers are added up. So a sweep has the same
answer to the last bit whatever parts it is cut into and whoever prices them.

An axis is a column of a sweep: less is better, or more with a minus in front (`-batch_size`). `device_s`,
which reducers alone have, is seconds x devices / batch: its product with the price of a device's second is
the price of a sample. Rows with no value on an axis, and rows known not to fit in the device's memory, are
left out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np

from costmodel.kinds import refused
from costmodel.parallel import Parallel
from costmodel.questions.chunks import COUNTS, as_held, join_chunks
from costmodel.questions.sweep_columns import COLUMNS
from costmodel.request import names_of
from hardware_specs.errors import InvalidInputError, UnknownNameError
from hardware_specs.showing import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    import pandas as pd

    from costmodel.questions.chunks import Chunk
    from costmodel.questions.sweep_plan import SweepPlan

DEVICE_S = "device_s"
#: What an axis may be.
AXES = (*(name for name in COLUMNS if name not in ("bound", "fits")), *COUNTS, DEVICE_S)
#: Arguments that rows may be grouped by: those that a piece has one value of.
GROUPS = tuple(
    name
    for name in names_of("subject", "setting", "shape")
    if name not in ("convention", "images", "tokens_per_layer")
)
#: Rows that are kept at most, all groups together: what is kept of a sweep stays small.
MOST_KEPT = 20_000
#: Points of a front that others are compared with first: most rows are worse than one of them.
_CHAMPIONS = 24
#: Comparisons made at a time.
_COMPARED = 1 << 20
#: Edges of a histogram that is given none: ten to a decade, from 1e-9 to 1e18.
EDGES = tuple(
    float(f"1e{power}") * 10 ** (part / 10) for power in range(-9, 18) for part in range(10)
)
MOST_EDGES = 10_000

State = TypeVar("State")
#: Values of the grouping arguments.
Group = tuple[Any, ...]


class Part(NamedTuple):
    """A part of a sweep, as a reducer gets it.

    Attributes:
        number: which one; it has the same rows whoever prices it.
        chunks: its pieces, which are priced as they are asked for.
        identity: what is priced, as JSON has it: two sweeps with the same have the same parts.
    """

    number: int
    chunks: Iterator[Chunk]
    identity: Callable[[], dict[str, Any]]


@runtime_checkable
class Reducer(Protocol[State]):
    """What `sweep(reduce=...)` takes; an object of one's own may do so as well if it can be pickled."""

    @property
    def columns(self) -> Collection[str] | None:
        """The columns that are read, nothing else being worked out; None for all."""

    def reduced(self, part: Part, /) -> State:
        """Return the state of a part."""

    def merged(self, one: State, other: State, /) -> State:
        """Return the state of both together; both may be changed."""

    def result(self, state: State, plan: SweepPlan, /) -> pd.DataFrame:
        """Return the answer; what could not be priced, where its `attrs` do not say, is counted."""


class Kept:
    """Rows of one group: their values, shape (axes, rows), least is best, and their numbers."""

    def __init__(self, points: np.ndarray, rows: np.ndarray) -> None:
        self.points, self.rows = points, rows

    def __add__(self, other: Kept) -> Kept:
        """Return the rows of both."""
        return Kept(
            np.concatenate([self.points, other.points], axis=1),
            np.concatenate([self.rows, other.rows]),
        )

    def only(self, which: np.ndarray) -> Kept:
        """Return some of the rows, by index or by a mask."""
        return Kept(self.points[:, which], self.rows[which])

    def sorted(self) -> Kept:
        """Return the rows from the best on the first axis, ties by the others, then by their number."""
        return self.only(np.lexsort((self.rows, *self.points[::-1])))


@dataclass(frozen=True)
class _Rows(ABC):
    """What `top_k` and `pareto` have in common: rows of a sweep, by group."""

    axes: tuple[str, ...]
    per: tuple[str, ...]
    fits: bool

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read."""
        return _read(self.axes, self.fits)

    def reduced(self, part: Part) -> dict[Group, Kept]:
        """Return the best rows of a part."""
        state: dict[Group, Kept] = {}
        for chunk in part.chunks:
            found = _points(chunk, self.axes, self.fits)
            if len(found.rows):
                self._add(state, _group(chunk, self.per), found)
        return state

    def merged(self, one: dict[Group, Kept], other: dict[Group, Kept]) -> dict[Group, Kept]:
        """Return the best rows of both."""
        for group, found in other.items():
            self._add(one, group, found)
        return one

    def result(self, state: dict[Group, Kept], plan: SweepPlan) -> pd.DataFrame:
        """Return the rows as `sweep` gives them, and `device_s`; group by group, the best first."""
        import pandas as pd

        groups = sorted(state, key=lambda group: state[group].rows.min())
        rows = np.concatenate(
            [state[group].sorted().rows for group in groups] or [np.empty(0, int)]
        )
        ascending = np.sort(rows)
        chunks = plan.at(ascending)
        if not chunks:
            names = [name for name in AXES if name != DEVICE_S]
            return pd.DataFrame(columns=pd.Index([*GROUPS, *names, DEVICE_S]))
        table = join_chunks(chunks)
        table[DEVICE_S] = _device_s(table, table)
        table.index = pd.Index(ascending, name="row")
        return table.loc[rows]

    def _add(self, state: dict[Group, Kept], group: Group, found: Kept) -> None:
        held = state.get(group)
        state[group] = self._best(held, found)
        kept = sum(len(each.rows) for each in state.values())
        if kept > MOST_KEPT:
            raise InvalidInputError(
                f"more than {MOST_KEPT:,} rows would be kept, in {len(state)} groups; ask for fewer "
                "rows, fewer axes or larger groups"
            )

    @abstractmethod
    def _best(self, held: Kept | None, found: Kept) -> Kept:
        """Return what is kept of the rows that were held and of those that were found."""


@dataclass(frozen=True)
class TopK(_Rows):
    """See `top_k`."""

    count: int = 1

    def _best(self, held: Kept | None, found: Kept) -> Kept:
        if held is not None:
            if len(held.rows) == self.count:
                found = found.only(found.points[0] <= held.points[0].max())
            found = held + found
        return found.only(np.lexsort((found.rows, found.points[0]))[: self.count])


@dataclass(frozen=True)
class Pareto(_Rows):
    """See `pareto`."""

    def _best(self, held: Kept | None, found: Kept) -> Kept:
        if held is None:
            return _front(found)
        order = np.argsort(held.points[0])
        some = np.linspace(0, len(order) - 1, min(_CHAMPIONS, len(order))).astype(int)
        for champion in held.only(order[some]).points.T[:, :, None]:
            no_better = (found.points >= champion).all(axis=0)
            # One that is equal may have the lower number.
            found = found.only(~no_better | (found.points == champion).all(axis=0))
        found = _front(_unbeaten(found, held))
        return _unbeaten(held, found) + found


@dataclass(frozen=True)
class Histogram:
    """See `histogram`."""

    axis: str
    edges: tuple[float, ...]
    per: tuple[str, ...]
    fits: bool

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read."""
        return _read((self.axis,), self.fits)

    def reduced(self, part: Part) -> dict[Group, np.ndarray]:
        """Return how many rows of a part there are below, between and above the edges."""
        state: dict[Group, np.ndarray] = {}
        for chunk in part.chunks:
            values = _points(chunk, (self.axis,), self.fits).points[0]
            places = np.searchsorted(self.edges, values, side="right")
            counts = np.bincount(places, minlength=len(self.edges) + 1)
            self.merged(state, {_group(chunk, self.per): counts})
        return state

    def merged(
        self, one: dict[Group, np.ndarray], other: dict[Group, np.ndarray]
    ) -> dict[Group, np.ndarray]:
        """Return the counts of both."""
        for group, counts in other.items():
            one[group] = one[group] + counts if group in one else counts
        if len(one) > MOST_KEPT:
            raise InvalidInputError(
                f"there are more than {MOST_KEPT:,} groups; ask for larger ones"
            )
        return one

    def result(self, state: dict[Group, np.ndarray], _plan: SweepPlan) -> pd.DataFrame:
        """Return the intervals between the first and the last that have rows, `low` <= value < `high`."""
        import pandas as pd

        borders = np.array([-np.inf, *self.edges, np.inf])
        rows: list[dict[str, Any]] = []
        for group in sorted(state, key=_in_order):
            counts = state[group]
            some = np.flatnonzero(counts)
            for place in range(some[0], some[-1] + 1) if len(some) else ():
                ends = {"low": borders[place], "high": borders[place + 1]}
                rows.append(
                    {**dict(zip(self.per, group, strict=True)), **ends, "rows": counts[place]}
                )
        return pd.DataFrame(rows, columns=pd.Index([*self.per, "low", "high", "rows"]))


def top_k(
    count: int, axis: str = "time_s", *, per: str | Sequence[str] = (), fits: bool = True
) -> TopK:
    """Return a reducer that keeps the best rows on one axis.

    Args:
        count: how many, of each group.
        axis: a column of a sweep that shall be low, or with a minus in front high; or `device_s`.
        per: arguments whose values are groups, such as `hardware`, each with its own best rows.
        fits: whether rows that do not fit in the device's memory are left out.

    Raises:
        InvalidInputError: a count below 1 or over 20,000.
        UnknownNameError: no such axis or argument.

    >>> from costmodel import sweep
    >>> devices = ["nvidia-t4", "nvidia-l4", "nvidia-a100-sxm4-80gb"]
    >>> best = sweep("llava-1.5-7b", devices, batch_size=[1, 8], reduce=top_k(2, "device_s"))
    >>> [(row.hardware, row.batch_size) for row in best.itertuples()]
    [('nvidia-a100-sxm4-80gb', 8), ('nvidia-a100-sxm4-80gb', 1)]
    """
    if type(count) is not int or not 1 <= count <= MOST_KEPT:
        raise refused("count", f"a whole number from 1 to {MOST_KEPT}", count)
    return TopK(_axes([axis]), _names(per), fits, count)


def pareto(*axes: str, per: str | Sequence[str] = (), fits: bool = True) -> Pareto:
    """Return a reducer that keeps the rows that no other row beats: no worse on all axes, better on one.

    Of rows that are equal on all axes the first is kept.

    Args:
        axes: two columns of a sweep or more, as of `top_k`.
        per: arguments whose values are groups, each with its own front.
        fits: whether rows that do not fit in the device's memory are left out.

    Raises:
        InvalidInputError: fewer than two axes, or one twice; while it runs: more than 20,000 rows.
        UnknownNameError: no such axis or argument.

    >>> from costmodel import sweep
    >>> front = sweep("llava-1.5-7b", "nvidia-l4", batch_size=[1, 2, 4], calibration=None,
    ...               reduce=pareto("ttft_s", "-batch_size"))
    >>> list(front.batch_size)
    [1, 2, 4]
    """
    if len(axes) < 2:
        raise InvalidInputError("pareto needs two axes or more; for one there is top_k")
    return Pareto(_axes(axes), _names(per), fits)


def histogram(
    axis: str,
    edges: Sequence[float] | None = None,
    *,
    per: str | Sequence[str] = (),
    fits: bool = True,
) -> Histogram:
    """Return a reducer that counts rows by their value on an axis.

    Args:
        axis: a column of a sweep, or `device_s`.
        edges: ascending ends of the intervals, each `low` <= value < `high`; None for ten to a decade
            from 1e-9 to 1e18. What is outside is counted up to and from infinity.
        per: arguments whose values are groups, each counted apart.
        fits: whether rows that do not fit in the device's memory are left out.

    Raises:
        InvalidInputError: edges that do not ascend, or more than 10,000.
        UnknownNameError: no such axis or argument.

    >>> from costmodel import sweep
    >>> reduce = histogram("visual_tokens", [1, 101, 501])
    >>> sweep("llava-1.5-7b", "nvidia-l4", visual_tokens=range(1, 577), reduce=reduce).values.tolist()
    [[1.0, 101.0, 100.0], [101.0, 501.0, 400.0], [501.0, inf, 76.0]]
    """
    (axis,) = _axes([axis])
    if axis.startswith("-"):
        raise InvalidInputError(f"a histogram has no better or worse; say {axis[1:]!r}")
    try:
        ends = np.asarray(EDGES if edges is None else edges, dtype=float)
    except (TypeError, ValueError):
        ends = np.empty(0)
    ascend = ends.ndim == 1 and np.isfinite(ends).all() and np.all(ends[:-1] < ends[1:])
    if not ascend or not 1 <= len(ends) <= MOST_EDGES:
        raise InvalidInputError(
            f"edges are 1 to {MOST_EDGES:,} ascending numbers, not {shown(edges)}"
        )
    return Histogram(axis, tuple(ends.tolist()), _names(per), fits)


def _axes(axes: Iterable[str]) -> tuple[str, ...]:
    plain = [str(axis).removeprefix("-") for axis in axes]
    for name in plain:
        if name not in AXES:
            raise UnknownNameError(name, AXES, "axis")
    if len(set(plain)) < len(plain):
        raise InvalidInputError(f"an axis is there twice: {', '.join(plain)}")
    return tuple(map(str, axes))


def _names(per: str | Sequence[str]) -> tuple[str, ...]:
    try:
        names = (per,) if isinstance(per, str) else tuple(dict.fromkeys(per))
    except TypeError:
        raise InvalidInputError(
            f"per is the name of an argument or a list of them, not {shown(per)}"
        ) from None
    for name in names:
        if name not in GROUPS:
            raise UnknownNameError(name, GROUPS, "argument to group by")
    return names


def _read(axes: Iterable[str], fits: bool) -> tuple[str, ...]:
    """Return the columns that axes are worked out from."""
    names = [axis.removeprefix("-") for axis in axes]
    if DEVICE_S in names:
        names += ["time_s", "batch_size"]
    return (
        *(name for name in dict.fromkeys(names) if name != DEVICE_S),
        *(["fits"] if fits else []),
    )


def _group(chunk: Chunk, per: tuple[str, ...]) -> Group:
    return tuple(as_held(name, chunk.fixed.get(name)) for name in per)


def _in_order(group: Group) -> list[tuple[bool, Any]]:
    """Return what groups are ordered by: numbers by their size, what is none last."""
    numbers = [isinstance(value, (int, float)) for value in group]
    return [(not n, v if n else str(v)) for n, v in zip(numbers, group, strict=True)]


def _points(chunk: Chunk, axes: tuple[str, ...], fits: bool) -> Kept:
    """Return the values of a piece's rows on some axes, without the rows that are left out."""
    points = np.full((len(axes), chunk.rows), np.nan)
    for place, axis in enumerate(axes):
        name = axis.removeprefix("-")
        column = chunk.columns.get(name)
        if name == DEVICE_S and chunk.columns["time_s"] is not None:
            column = _device_s(chunk.columns, chunk.fixed)
        if column is not None:
            points[place] = -column if axis.startswith("-") else column
    found = Kept(points, np.arange(chunk.first, chunk.first + chunk.rows))
    whole = ~np.isnan(points).any(axis=0)
    if fits and chunk.columns["fits"] is not None:
        whole &= chunk.columns["fits"]
    return found if whole.all() else found.only(whole)


def _device_s(columns: Any, arguments: Any) -> Any:
    return columns["time_s"] * Parallel.of(arguments).devices / columns["batch_size"]


def _front(found: Kept) -> Kept:
    """Return the rows that no other of them beats."""
    left = found.sorted()
    if len(left.points) == 2:
        second = left.points[1]
        lowest = np.minimum.accumulate(second)
        return left.only(np.concatenate([[True], second[1:] < lowest[:-1]])[: len(second)])
    places, kept = np.arange(len(left.rows)), []
    points = left.points
    while len(places):
        # The first that is left is beaten by nothing after it, nor by what was taken before.
        kept.append(places[0])
        other = ~(points >= points[:, :1]).all(axis=0)
        points, places = points[:, other], places[other]
    return left.only(np.array(kept, dtype=int))


def _unbeaten(found: Kept, by: Kept) -> Kept:
    """Return the rows that none of others beats: no worse on all axes, and better on one or before it."""
    stays = np.ones(len(found.rows), dtype=bool)
    step = max(1, _COMPARED // max(1, len(by.rows)))
    for start in range(0, len(found.rows), step):
        part = slice(start, start + step)
        no_worse = np.ones((len(found.rows[part]), len(by.rows)), dtype=bool)
        equal = no_worse.copy()
        for mine, other in zip(found.points, by.points, strict=True):
            no_worse &= other <= mine[part, None]
            equal &= other == mine[part, None]
        beaten = no_worse & (~equal | (by.rows < found.rows[part, None]))
        stays[part] = ~beaten.any(axis=1)
    return found.only(stays)
