"""The space of assumptions: every choice that a published count may rest on, written down once.

The space is the same for every table. Choices that change no cell of a table (grouped queries of a
model that has none, the rounding of shares where none is printed) are left out of its search.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from costmodel.audits.table import Cell

#: Text lengths that are tried where the table states none; one for the whole table.
TEXT_LENGTHS = np.arange(513)
#: Sequence lengths that are tried where a tool was given lengths of its own.
TOOL_LENGTHS = np.arange(1, 2049)
#: choice -> its values with what they mean.
CHOICES: dict[str, dict[Any, str]] = {
    "operations": {1: "MAC", 2: "FLOP (2 per MAC)"},
    "ffn_matrices": {2: "2", 3: "3"},
    "attention": {1.0: "full", 0.5: "causal", 0.0: "not counted"},
    "grouped_queries": {0: "not modelled (K and V are d x d)", 1: "modelled"},
    "counted": {0: "text and visual tokens", 1: "visual share only: what the visual tokens add"},
    "output_head": {0: "not counted", 1: "counted for every token"},
    "vision_tower": {0: "not counted", 1: "counted without attention", 2: "counted"},
    "projector": {0: "not counted", 1: "counted"},
    "layers": {0: "total", 1: "mean over layers"},
    "bytes": {0: "1000s (MB)", 1: "1024s (MiB)"},
    "layer_k": {0: "as stated", -1: "one less", 1: "one more"},
    "kept_tokens": {
        "real": "not rounded",
        "floor": "rounded down",
        "round": "rounded",
        "frame": "rounded down frame by frame",
    },
    "labels": {0: "exact", 1: "rounded: half a unit of the last digit to both sides"},
    "default_schedules": {
        "behind": "tokens kept behind layer K",
        "mean": "tokens in every layer",
    },
    "digits": {"rounded": "rounded", "truncated": "cut off"},
}


class Reading(NamedTuple):
    """One way of reading the table's schedules, each field a choice of `CHOICES`."""

    layer_k: int = 0
    kept_tokens: str = "real"
    labels: int = 0
    default_schedules: str = "behind"


class Family(NamedTuple):
    """One set of assumptions without text length and printing: what tells one way of counting."""

    operations: int = 2
    ffn_matrices: int = 3
    attention: float = 1.0
    grouped_queries: int = 0
    counted: int = 0
    output_head: int = 0
    vision_tower: int = 0
    projector: int = 0
    layers: int = 0
    bytes: int = 0
    reading: int = 0


def readings(cells: Sequence[Cell]) -> list[Reading]:
    """Return the ways of reading these cells' schedules that may differ."""
    schedules = [cell.schedule for cell in cells if cell.schedule is not None]
    steps = [step for schedule in schedules for step in schedule.steps]
    shares = any(step.share and 0 < step.tokens < 1 for step in steps)
    frames = any(schedule.frames > 1 for schedule in schedules)
    vary = {
        "layer_k": any(len(schedule.steps) > 1 for schedule in schedules),
        "kept_tokens": shares,
        "labels": any(step.half for step in steps),
        "default_schedules": any(schedule.kind == "default" for schedule in schedules),
    }
    values = [
        list(CHOICES[name]) if varies else list(CHOICES[name])[:1] for name, varies in vary.items()
    ]
    return [Reading(*each) for each in product(*values) if frames or each[1] != "frame"]


def flops_families(
    ways: int, *, grouped: bool, tower: bool, per_layer: bool
) -> NDArray[np.float64]:
    """Return every family of FLOPs counts as rows of numbers, in the order of `Family`."""
    beside = [
        (0, *extra)
        for extra in product((0, 1), (0, 1, 2) if tower else (0,), (0, 1) if tower else (0,))
    ]
    # The visual share is a difference in the language model: nothing beside it counts.
    whole = [*beside, (1, 0, 0, 0)]
    found = [
        (*first, *rest, layers, 0, way)
        for way in range(ways)
        for layers in ((0,) if per_layer else (0, 1))
        for rest in whole
        for first in product((1, 2), (2, 3), (1.0, 0.5, 0.0), (0, 1) if grouped else (0,))
    ]
    return np.array(found, dtype=np.float64)


def kv_families(ways: int, *, grouped: bool, binary: bool) -> NDArray[np.float64]:
    """Return every family of KV-cache sizes: grouped queries, MB or MiB, reading."""
    found = [
        Family(grouped_queries=gqa, bytes=unit, reading=way)
        for way in range(ways)
        for unit in ((0, 1) if binary else (0,))
        for gqa in ((0, 1) if grouped else (0,))
    ]
    return np.array(found, dtype=np.float64)


def in_words(
    row: NDArray[np.float64], families: NDArray[np.float64], reading: Reading, ways: list[Reading]
) -> dict[str, str]:
    """Return a family's choices in words, those alone that the table's search varies."""
    words = {
        name: CHOICES[name][row[place]]
        for place, name in enumerate(Family._fields[:-1])
        if len(np.unique(families[:, place])) > 1
    }
    return words | {
        name: CHOICES[name][reading[place]]
        for place, name in enumerate(Reading._fields)
        if len({way[place] for way in ways}) > 1
    }
