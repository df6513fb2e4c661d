"""The search: which sets of assumptions print which cells, of the table and of its altered copies.

The values of all sets are computed once, as whole numbers of the last printed digit; the table and
its copies are then compared with them as one array. A set whose values lie outside what an altered
cell can print (3 % and one digit) in four fifths of the cells is hardly the best and is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.audits.assumptions import (
    Reading,
    flops_families,
    in_words,
    kv_families,
    readings,
)
from costmodel.audits.counting import counted
from costmodel.audits.shapes import shape_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from costmodel.audits.counting import Counted
    from costmodel.audits.table import Cell, Schedule

#: An altered copy's cells are each multiplied by a factor from 1 - ALTERED to 1 + ALTERED.
ALTERED = 0.03
COPIES = 999
#: Lets a value that is a decimal half round up although its binary form is just below.
_SLACK = 1e-9
#: Numbers in one array of values, and comparisons in one array of matches.
_CHUNK, _MATCHES = 4_000_000, 4_000_000


@dataclass(frozen=True, slots=True)
class Found:
    """What one search says of the cells of one quantity.

    Attributes:
        best: cells that the best set prints.
        copies: the same for every altered copy.
        families: the families that reach the best, each a dictionary: its words, the text lengths
            with which it does, the printing, and which cells it prints.
        printable: whether some set prints the cell at all, by cell.
        exact: whether every copy's best is known, and not only that it is no more.
    """

    best: int
    copies: NDArray[np.int64]
    families: tuple[dict[str, Any], ...]
    printable: NDArray[np.bool_]
    exact: bool = True


def digits_of(cells: Sequence[Cell]) -> NDArray[np.int64]:
    """Return printed numbers as whole numbers of their last digit."""
    return np.array([round(cell.value / cell.step) for cell in cells], dtype=np.int64)


def altered(cells: Sequence[Cell], copies: int, seed: int) -> NDArray[np.int64]:
    """Return the digits of altered copies: copies x cells.

    Each printed value is multiplied by a uniform factor from 0.97 to 1.03 and rounded to its digits
    again; a copy in which no digit changed is drawn again, and left as it is where none can change.
    """
    digits = digits_of(cells)
    random = np.random.default_rng(seed)
    found = np.empty((copies, len(cells)), dtype=np.int64)
    same = np.full(copies, fill_value=True)
    for _ in range(100):
        factors = random.uniform(1 - ALTERED, 1 + ALTERED, (int(same.sum()), len(cells)))
        found[same] = np.floor(digits * factors + 0.5)
        same = (found == digits).all(axis=1)
        if not same.any():
            break
    return found


class Tally:
    """Matches so far, of the table and of its copies.

    Digits are held as distances from the least that an altered cell prints, -1 where a set is out of
    reach of them, so that they are small numbers.
    """

    def __init__(self, cells: Sequence[Cell], copies: NDArray[np.int64]) -> None:
        """Start at no match."""
        value = np.array([cell.value for cell in cells])
        self.step = np.array([cell.step for cell in cells])
        self.least, self.most = value * (1 - ALTERED) - self.step, value * (1 + ALTERED) + self.step
        self.base = np.floor(self.least / self.step).astype(np.int64)
        width = float((self.most / self.step - self.base).max(initial=0))
        # The smaller the numbers, the faster they are compared.
        self.kind = np.min_scalar_type(-int(width) - 2)
        self.count = np.min_scalar_type(len(cells))
        self.digits = (digits_of(cells) - self.base).astype(self.kind)
        self.columns = np.ascontiguousarray((copies - self.base).astype(self.kind).T)
        self.printable = np.zeros(len(cells), dtype=bool)
        self.reached = np.zeros(len(copies), dtype=np.int64)
        self._seen: set[int] = set()
        self._mix = np.random.default_rng(1).integers(1, 2**62, 2 * len(cells), dtype=np.int64)

    def digits_for(self, values: Any, inside: Any, up: float) -> Any:
        """Return values as digits, -1 where they are out of reach."""
        found = np.floor(values / self.step + up + _SLACK) - self.base
        return np.where(inside, found, -1).astype(self.kind)

    def own(self, low: Any, high: Any) -> Any:
        """Return which cells of the table itself each set prints: sets x cells."""
        prints = (low <= self.digits) & (self.digits <= high)
        self.printable |= prints.any(axis=0)
        return prints

    def compare(self, low: Any, high: Any) -> None:
        """Raise every copy's best to what these sets print of it; known digits are passed over."""
        copies = len(self.reached)
        if not copies or not len(low):
            return
        both = np.concatenate([low, high], axis=1).astype(np.int64)
        with np.errstate(over="ignore"):
            marks = both @ self._mix
        _, first = np.unique(marks, return_index=True)
        fresh = [i for i in first.tolist() if int(marks[i]) not in self._seen]
        self._seen.update(marks[fresh].tolist())
        low, high = low[fresh], high[fresh]
        exact = bool((low == high).all())
        several = max(1, _MATCHES // copies)
        for start in range(0, len(low), several):
            part = slice(start, start + several)
            count = np.zeros((len(low[part]), copies), dtype=self.count)
            for place, column in enumerate(self.columns):
                if exact:
                    count += low[part, place, None] == column
                else:
                    count += (low[part, place, None] <= column) & (
                        column <= high[part, place, None]
                    )
            self.reached = np.maximum(self.reached, count.max(axis=0))


def search(
    cells: Sequence[Cell],
    bases: Sequence[Schedule | None],
    lengths: NDArray[np.int64],
    copies: NDArray[np.int64],
    *,
    kv: bool = False,
) -> Found:
    """Return what the space of assumptions makes of some cells and of their altered copies.

    The cells are of one quantity, FLOPs or bytes of a KV cache (`kv`), distinct and informative; `bases`
    are the schedules that their ratios refer to, `copies` digits of altered copies, copies x cells. One
    of the text lengths holds for all cells.
    """
    ready, ways = counted(cells, bases, readings(cells), kv=kv)
    shapes = [shape_of(cell.model) for cell in cells]
    grouped = any(shape.kv < shape.d for shape in shapes)
    if kv:
        binary = any(cell.scale in (1e6, 1e9) for cell in cells)
        families = kv_families(len(ways), grouped=grouped, binary=binary)
    else:
        tower = any(
            shape.tower_linear and cell.part == "total"
            for shape, cell in zip(shapes, cells, strict=True)
        )
        parts = any(cell.part in ("vision", "projector") for cell in cells)
        families = flops_families(
            len(ways),
            grouped=grouped,
            tower=tower or parts,
            per_layer=any(c.per_layer for c in cells),
        )
    tally = Tally(cells, copies)
    best = 0
    need = max(1, len(cells) // 5)
    hits: list[tuple[int, int, str, Any]] = []
    for rows, text, mode, low, high in _sets(ready, families, lengths, need, tally):
        prints = tally.own(low, high)
        total = prints.sum(axis=1)
        if total.max(initial=0) >= max(best, 1):
            if total.max() > best:
                best, hits = int(total.max()), []
            hits += [
                (int(rows[i]), int(text[i]), mode, prints[i]) for i in np.flatnonzero(total == best)
            ]
        tally.compare(low, high)
    # What was left out prints fewer than `need` cells of any copy: a copy is credited with that.
    reached = np.maximum(tally.reached, need - 1)
    exact = bool((tally.reached >= need - 1).all())
    return Found(best, reached, _by_family(hits, families, ways), tally.printable, exact)


def _sets(
    ready: Counted,
    families: NDArray[np.float64],
    lengths: NDArray[np.int64],
    need: int,
    tally: Tally,
) -> Iterator[tuple[Any, Any, str, Any, Any]]:
    """Yield sets near the table: family, text length, printing, digits at both ends of the labels."""
    least, most = tally.least, tally.most
    wide = ready.high is not ready.low
    # A count rises or falls with the text: its ends say whether a family can come near.
    ends = [ready.values(families, lengths[[0, -1]])]
    ends += [ready.values(families, lengths[[0, -1]], high=True)] if wide else []
    bounds = np.concatenate(ends, axis=1)
    near = (bounds.max(axis=1) >= least) & (bounds.min(axis=1) <= most)
    close = np.flatnonzero(near.sum(axis=1) >= need)
    several = max(1, _CHUNK // (len(lengths) * len(least)))
    for start in range(0, len(close), several):
        part = close[start : start + several]
        low = ready.values(families[part], lengths)
        high = ready.values(families[part], lengths, high=True) if wide else low
        if wide:
            low, high = np.minimum(low, high), np.maximum(low, high)
        inside = (high >= least) & (low <= most)
        which, text = np.nonzero(inside.sum(axis=2) >= need)
        low, high, inside = low[which, text], high[which, text], inside[which, text]
        for mode, up in (("rounded", 0.5), ("truncated", 0.0)):
            first = tally.digits_for(low, inside, up)
            last = tally.digits_for(high, inside, up) if wide else first
            yield part[which], lengths[text], mode, first, last


def _by_family(
    hits: list[tuple[int, int, str, Any]], families: NDArray[np.float64], ways: list[Reading]
) -> tuple[dict[str, Any], ...]:
    """Join the sets that differ in text length and printing alone, those with most lengths first."""
    found: dict[Any, list[tuple[int, int, str, Any]]] = {}
    places = {tuple(row): place for place, row in enumerate(families.tolist())}
    for hit, text, mode, prints in hits:
        row = families[hit].tolist()
        if text == 0 and not any(row[5:8]):
            # Without text the whole is the visual share.
            row[4] = 1.0
        family = places.get(tuple(row), hit)
        shift = ways[int(row[10])].layer_k
        found.setdefault((*row[:10], shift), []).append((family, text, mode, prints))
    joined = []
    for sets in found.values():
        # Rounding of shares and of labels is how a schedule is read, not how work is counted.
        row = min(family for family, *_ in sets)
        mine = [each for each in sets if each[0] == row]
        joined.append(
            {
                "assumptions": in_words(
                    families[row], families, ways[int(families[row, 10])], ways
                ),
                "text_tokens": sorted({text for _, text, _, _ in mine}),
                "digits": sorted({mode for _, _, mode, _ in mine}),
                "prints": mine[0][3],
                "row": families[row],
                "reading": ways[int(families[row, 10])],
            }
        )
    return tuple(joined)
