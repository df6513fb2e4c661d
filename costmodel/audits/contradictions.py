"""What a table contradicts by itself, found without any assumption on how it was counted.

Printed digits are intervals: rounded half up, or cut off. A contradiction holds under both.

- ratio: the printed values of a row and its base cannot give the printed ratio.
- same inputs: model, tokens, quantity and precision are the same, the digits are not.
- difference: FLOPs of layers that see n tokens are X n + Y n^2 + Z, with Y of attention none, half or
  all of it, in MAC or FLOP. No X > 0 gives the rows; or rows of one mean are further apart than any
  two schedules of that mean.
- precision: operations do not depend on the bit width, so rows that differ in it alone keep one
  ratio; one pair has another than all the rest.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

from costmodel.audits.shapes import shape_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from costmodel.audits.table import Cell, PublishedTable

#: Share by which two intervals must miss each other: printed digits are decimal, floats are not.
_MARGIN = 1e-9
#: Counts of tokens whose rows are compared pair by pair.
MOST_COUNTS = 60
Interval = tuple[float, float]


def contradictions(table: PublishedTable) -> list[dict[str, Any]]:
    """Return every contradiction: its kind, the cells, and what is wrong in one sentence.

    A precision's contradiction also holds its two cells as `suspects`.
    """
    counted = [
        cell
        for cell in table.cells
        if cell.quantity in ("flops", "kv_cache")
        and cell.schedule is not None
        and cell.schedule.kind == "stated"
        and cell.value > 0
    ]
    flops = [cell for cell in counted if cell.quantity == "flops" and not cell.ratio]
    return [
        *_ratios(table.cells),
        *_same_inputs(counted),
        *_differences([cell for cell in flops if cell.part in ("total", "llm")]),
        *_precisions(
            [c for c in table.cells if c.quantity == "flops" and not c.ratio and c.value > 0]
        ),
    ]


def follows(cell: Cell, table: PublishedTable) -> bool:
    """Tell whether a ratio follows from printed cells: their quotient prints it, or it is its own base."""
    pair = _behind(cell, table.cells)
    if pair is None or cell.row == cell.base:
        return cell.row == cell.base
    quotient = _given(cell.ratio, *pair) * (1 + _MARGIN)
    ends = (cell.interval(truncated=cut) for cut in (False, True))
    return any(low <= quotient < high for low, high in ends)


def _behind(cell: Cell, cells: Sequence[Cell]) -> tuple[Cell, Cell] | None:
    """Return the printed values of a ratio's row and base."""
    same = ("quantity", "part", "model", "precision", "per_layer")
    values = {
        other.row: other
        for other in cells
        if not other.ratio and all(getattr(other, name) == getattr(cell, name) for name in same)
    }
    own, base = values.get(cell.row), values.get(cell.base or "")
    return None if own is None or base is None else (own, base)


def _quotient(ratio: str, own: float, base: float) -> float:
    if ratio == "times":
        return base / own if own else float("inf")
    share = own / base if base else float("inf")
    return 1 - share if ratio == "saved" else share


def _given(ratio: str, own: Cell, base: Cell) -> float:
    """Return the ratio that two printed values give."""
    return _quotient(ratio, own.value * own.scale, base.value * base.scale)


def _between(ratio: str, own: Cell, base: Cell, *, truncated: bool) -> Interval:
    """Return the ratios that values which print as these two may have."""
    (a, b), (c, d) = (cell.interval(truncated=truncated) for cell in (own, base))
    ends = _quotient(ratio, a, d), _quotient(ratio, b, max(c, 1e-300))
    return min(ends), max(ends)


def _apart(one: Interval, other: Interval) -> bool:
    """Whether two intervals have no value in common."""
    margin = _MARGIN * max(abs(one[1]), abs(other[1]))
    return one[0] >= other[1] - margin or other[0] >= one[1] - margin


def _disjoint(one: Cell, other: Cell) -> bool:
    """Whether nothing prints both cells, rounded or cut off."""
    cuts = (False, True)
    return all(_apart(one.interval(truncated=cut), other.interval(truncated=cut)) for cut in cuts)


def _said(kind: str, cells: Iterable[Cell], text: str) -> dict[str, Any]:
    return {"kind": kind, "cells": [str(cell) for cell in cells], "text": text}


def _ratios(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    found = []
    for cell in cells:
        pair = _behind(cell, cells) if cell.ratio else None
        if pair is None:
            continue
        own, base = pair
        if all(
            _apart(_between(cell.ratio, *pair, truncated=cut), cell.interval(truncated=cut))
            for cut in (False, True)
        ):
            gives = _given(cell.ratio, *pair) / cell.scale
            text = (
                f"{cell.row}: {own.printed} {own.unit} against {base.printed} {base.unit} of {base.row} "
                f"gives {gives:.4g} {cell.unit}, the table prints {cell.printed} {cell.unit}"
            )
            found.append(_said("ratio", (cell, own, base), text))
    return found


def _same_inputs(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    groups: dict[Any, list[Cell]] = {}
    for cell in cells:
        if cell.schedule is not None and not cell.schedule.mean:
            groups.setdefault((*cell.inputs, cell.base if cell.ratio else None), []).append(cell)
    found = []
    for group in groups.values():
        unlike = list({cell.value * cell.scale: cell for cell in group}.values())
        if any(_disjoint(a, b) for a, b in combinations(unlike, 2)):
            values = ", ".join(f"{cell.printed} ({cell.row})" for cell in unlike)
            tokens = "" if unlike[0].schedule is None else unlike[0].schedule.text
            text = (
                f"{unlike[0].model} with tokens {tokens}, {unlike[0].quantity.replace('_', ' ')} in "
                f"{unlike[0].unit or 'one unit'}: {values}: the same inputs, other digits"
            )
            found.append(_said("same inputs", unlike, text))
    return found


def _differences(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Compare the rows of one model whose layers all see one count."""
    groups: dict[Any, dict[float, list[Cell]]] = {}
    for cell in cells:
        schedule = cell.schedule
        count = None if schedule is None else schedule.uniform
        if schedule is None or count is None or any(s.half and s.share for s in schedule.steps):
            continue
        key = (cell.model, cell.precision, cell.part, cell.per_layer, cell.images)
        groups.setdefault(key, {}).setdefault(count, []).append(cell)
    found = []
    for by_count in groups.values():
        alone: dict[float, Cell] = {}
        for count, group in by_count.items():
            if any(cell.schedule and cell.schedule.mean for cell in group):
                found += _one_mean(count, group)
            else:
                alone[count] = group[0]
        found += _slopes(alone)
    return found


def _one_mean(mean: float, cells: list[Cell]) -> list[dict[str, Any]]:
    low, high = min(cells, key=lambda c: c.value), max(cells, key=lambda c: c.value)
    shape = shape_of(low.model)
    steps = [(c.schedule.full, c.schedule.steps[0].half) for c in cells if c.schedule is not None]
    full, half = max(each[0] for each in steps), max(each[1] for each in steps)
    # FLOP of full attention, 4 q n^2, with n none or all in every layer; and of a mean rounded apart.
    linear = 2 * shape.d * (shape.q + shape.kv) + 3 * shape.d * shape.f
    room = shape.layers * (4.0 * shape.q * mean * max(full - mean, 0) + 4 * half * linear)
    if any(
        high.interval(truncated=cut)[0] <= low.interval(truncated=cut)[1] + room
        for cut in (False, True)
    ):
        return []
    values = ", ".join(f"{c.printed} ({c.row})" for c in sorted(cells, key=lambda c: -c.value))
    text = (
        f"{low.model} with {mean:g} tokens on average, flops in {low.unit}: {values}; schedules of that "
        f"mean differ by at most {room / low.scale:.2g} {low.unit} in the layers"
    )
    return [_said("difference", cells, text)]


def _slopes(by_count: dict[float, Cell]) -> list[dict[str, Any]]:
    """Look for one cost of a token that all pairs of rows allow, at every share of attention."""
    pairs = list(combinations(sorted(by_count), 2))
    if len(pairs) < 2 or len(by_count) > MOST_COUNTS:
        return []
    cell = next(iter(by_count.values()))
    shape = shape_of(cell.model)
    tries = []
    for cut in (False, True):
        for layers in (1,) if cell.per_layer else (1, shape.layers):
            for share in (0.0, 0.5, 1.0, 2.0):
                slopes = []
                for n, m in pairs:
                    (a, b), (c, d) = (by_count[k].interval(truncated=cut) for k in (n, m))
                    curve = share * 2 * shape.q * layers * (m + n)
                    slopes.append(((c - b) / (m - n) - curve, (d - a) / (m - n) - curve, (n, m)))
                steep, flat = max(slopes), min(slopes, key=lambda each: each[1])
                over = steep[0] - flat[1]
                if over <= _MARGIN * abs(steep[0]) and flat[1] > 0:
                    return []
                # Shown is the share of attention that comes nearest.
                tries.append(((flat[1] <= 0, over), steep, flat))
    _, (least, _, steep_pair), (_, most, flat_pair) = min(tries)
    names = [[by_count[count].row for count in pair] for pair in (flat_pair, steep_pair)]
    text = (
        f"from {names[0][0]} to {names[0][1]} a token costs at most {most / cell.scale:.3g} {cell.unit}, "
        f"from {names[1][0]} to {names[1][1]} at least {least / cell.scale:.3g}, beside attention: "
        "no token count gives both"
    )
    return [_said("difference", [by_count[c] for c in sorted({*flat_pair, *steep_pair})], text)]


def _precisions(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Find the one pair of rows, alike but for the bit width, whose ratio no other pair has."""
    by_input: dict[Any, dict[str, Cell]] = {}
    for cell in cells:
        inputs: Any = tuple(part for part in cell.inputs if part != cell.precision)
        if cell.schedule is None or cell.schedule.kind == "inferred":
            inputs = (*inputs, cell.kind_of_row)
        by_input.setdefault(inputs, {}).setdefault(cell.precision, cell)
    found = []
    for one, other in combinations(sorted({cell.precision for cell in cells}), 2):
        pairs = [(f[one], f[other]) for f in by_input.values() if one in f and other in f]
        ratios = []
        for pair in pairs:
            (a, b), (c, d) = (cell.interval(truncated=False) for cell in pair)
            ratios.append((a / d, b / c))
        for odd, own in zip(pairs, ratios, strict=True):
            rest = [each for each in ratios if each is not own]
            if len(rest) < 2:
                continue
            low, high = max(r[0] for r in rest), min(r[1] for r in rest)
            if low <= high and _apart(own, (low, high)):
                text = (
                    f"{odd[0].row}, {odd[0].model}: {odd[0].printed} in {one} and {odd[1].printed} in "
                    f"{other} have the ratio {odd[0].value / odd[1].value:.3g}, all other rows "
                    f"{low:.3g} to {high:.3g}"
                )
                found.append(_said("precision", odd, text) | {"suspects": odd})
    return found
