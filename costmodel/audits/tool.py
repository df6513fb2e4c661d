"""Tables that LLM-Viewer printed: operations, roofline time, traffic and stored activations.

The tool counts one sequence length, so text and visual tokens are one number. Lengths are one text
length for the whole table, or, where that fails, a length of its own for each row's tokens.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.audits.assumptions import TOOL_LENGTHS
from costmodel.audits.search import Found, digits_of
from costmodel.conventions import get_convention
from costmodel.conventions.llmviewer.devices import DEVICES
from costmodel.reproduce.counted_models import counted_model
from costmodel.reproduce.digits import page_time_s, page_value, round_half_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from costmodel.audits.table import Cell

PRESETS = ("llmviewer-2024-02", "llmviewer-2024-07")
_BITS = {"w8a8": 8, "w4a16": 4}
#: Quantities of a table and the tool's names for them.
QUANTITIES = ("flops", "time", "memory", "activation")


def tool_devices(hardware: str) -> tuple[str, ...]:
    """Return the devices of the tool's own table that a text may mean.

    >>> tool_devices("Tesla V100 (roofline)")
    ('nvidia_V100',)
    """
    words = hardware.lower()
    return tuple(name for name in DEVICES if name.split("_")[1].lower() in words)


@cache
def _tool_values(preset: str, model: str, bits: int, device: str) -> dict[str, Any]:
    """Return every quantity at all lengths, SI units."""
    found = get_convention(preset).evaluate(
        getattr(counted_model(model), "text", counted_model(model)),
        hardware=device, visual_tokens=TOOL_LENGTHS, text_tokens=0,
        precision=f"w{bits}a{bits}kv{bits}",
    )  # fmt: skip
    return {
        "flops": found.totals.flops,
        "time": found.totals.time_s,
        "memory": found.totals.hbm_bytes,
        "activation": found.memory.activation_bytes_written,
    }


def tool_search(
    cells: Sequence[Cell],
    devices: Sequence[str],
    lengths: NDArray[np.int64],
    copies: NDArray[np.int64],
) -> Found:
    """Return what the tool makes of some cells and of their altered copies."""
    every = np.concatenate([digits_of(cells)[None], copies]).astype(np.int64)
    groups: dict[float | str, list[int]] = {}
    for place, cell in enumerate(cells):
        groups.setdefault(_visual(cell), []).append(place)
    reached = np.zeros(len(every), dtype=np.int64)
    printable = np.zeros(len(cells), dtype=bool)
    found: list[tuple[int, dict[str, Any]]] = []
    low_bits = any(_BITS.get(cell.precision, 16) < 16 for cell in cells)
    for preset, page, divide, device in product(
        PRESETS, (False, True), (False, True) if low_bits else (False,), devices
    ):
        digits = np.stack([_digits(cell, preset, device, page, divide) for cell in cells], axis=1)
        printable |= (digits == every[0]).any(axis=0)
        # Cells of a group that each length prints: lengths x tables.
        counts = {
            group: sum((digits[:, [p]] == every[:, p]).astype(np.uint16) for p in places)
            for group, places in groups.items()
        }
        words: dict[str, Any] = {"tool": preset, "device": device}
        words["values"] = "as its page shows them" if page else "not rounded before"
        if low_bits:
            words["low_bit_operations"] = "divided by 16 / bits" if divide else "as it counts them"
        own = sum(count.max(axis=0).astype(np.int64) for count in counts.values())
        chosen = {group: int(TOOL_LENGTHS[count[:, 0].argmax()]) for group, count in counts.items()}
        one, text = _one_length(counts, lengths)
        reached = np.maximum(reached, np.maximum(one, own))
        alike = bool(one[0] >= own[0])
        if alike:
            chosen = {group: round(float(group)) + text for group in groups}
        else:
            words["sequence_lengths"] = {_group_name(g): length for g, length in chosen.items()}
        prints = np.zeros(len(cells), dtype=bool)
        for group, places in groups.items():
            prints[places] = digits[chosen[group] - 1, places] == every[0, places]
        entry = {"assumptions": words, "text_tokens": [text] if alike else []}
        found.append((int(max(one[0], own[0])), entry | {"digits": ["rounded"], "prints": prints}))
    best = max(matched for matched, _ in found)
    families = tuple(entry for matched, entry in found if matched == best and best)
    return Found(best, reached[1:], families, printable)


def _one_length(counts: dict[float | str, Any], lengths: NDArray[np.int64]) -> tuple[Any, int]:
    """Return the best over text lengths for every table, and the length that is best for the first."""
    total = np.zeros((len(lengths), next(iter(counts.values())).shape[1]), dtype=np.int64)
    for group, count in counts.items():
        if isinstance(group, str):
            return total.max(axis=0) - 1, 0
        at = np.rint(group + lengths).astype(int) - 1
        known = (at >= 0) & (at < len(count))
        total += known[:, None] * count[np.clip(at, 0, len(count) - 1)]
    return total.max(axis=0), int(lengths[total[:, 0].argmax()])


def _group_name(group: float | str) -> str:
    return group if isinstance(group, str) else f"{group:g} visual"


def _visual(cell: Cell) -> float | str:
    """What tells a row's length: its visual tokens, or its name where they are not stated."""
    schedule = cell.schedule
    if schedule is None or schedule.kind == "inferred" or schedule.uniform is None:
        return cell.kind_of_row
    return schedule.uniform


def _digits(cell: Cell, preset: str, device: str, page: bool, divide: bool) -> NDArray[np.int64]:
    """Return what the tool prints for a cell at every length, in units of its last digit."""
    bits = _BITS.get(cell.precision, 16)
    value = _tool_values(preset, cell.model, bits, device)[cell.quantity]
    if page:
        value = page_time_s(value) if cell.quantity == "time" else page_value(value)
    value = value / cell.scale
    if divide and cell.quantity == "flops":
        value = value * bits / 16
    places = round(-np.log10(cell.step))
    digits: NDArray[np.int64] = np.rint(
        round_half_up(np.round(value, 9), places) * 10.0**places
    ).astype(np.int64)
    return digits
