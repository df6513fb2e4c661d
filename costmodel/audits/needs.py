"""What a cell that a set of assumptions does not print would need: another count of visual tokens."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.audits.counting import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costmodel.audits.table import Cell, Schedule


def needed_tokens(cell: Cell, family: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the set gives, and which counts of tokens in the last layers would print the cell.

    A count rises with its tokens, so the least and the most that print it are found by halving.
    """
    schedule = cell.schedule
    if schedule is None or cell.ratio:
        return {}
    row = family["row"].copy()[None]
    row[0, 10] = 0
    text, reading = np.array(family["text_tokens"][:1]), family["reading"]._replace(labels=0)

    def value(tried: Schedule) -> float:
        each = replace(cell, schedule=tried)
        ready, _ = counted([each], [None], [reading], kv=cell.quantity == "kv_cache")
        return float(ready.values(row, text)[0, 0, 0])

    *before, last = schedule.steps

    def with_tokens(count: int) -> float:
        step = last._replace(tokens=float(count), share=False)
        return value(replace(schedule, steps=(*before, step)))

    low, high = cell.interval(truncated="rounded" not in family["digits"])
    counts = range(int(max(2 * schedule.full, 64)))
    first = bisect_left(counts, low / cell.scale, key=with_tokens)
    past = bisect_left(counts, high / cell.scale, key=with_tokens)
    found: dict[str, Any] = {"set_gives": value(schedule)}
    if first < past:
        found["needs_tokens"] = [first, past - 1]
    return found
