"""PruMerge, Table 2: what stands behind the 32 printed cells, and what they should have been.

LLM-Viewer of February 2024, V100, prefill, batch 1, 16 or 4 bits for weights, activations and KV.
The paper states 576 + 40 and 40 + 40 tokens; the cells are those of 700 and 70. The INT4 FLOPs are
the FP16 ones as the page shows them, divided by 4, while the INT4 times use all operations at the
V100's 62 TOPS; that is why INT4 looks slower than FP16.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.conventions import get_convention
from costmodel.models import load_model
from costmodel.reproduce.digits import interval_of, page_time_s, page_value, prints_as
from costmodel.reproduce.own_model import own_cost
from costmodel.reproduce.published import PruMergeTable, load_published
from costmodel.reproduce.reproduction import DIFFERS, SAME_DIGITS, Column, Reproduction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from costmodel.reproduce.published import PruMergeRow
    from costmodel.result import Estimate

TITLE = "PruMerge, Table 2: published, recomputed, as stated, and corrected"

#: Lengths searched for the printed digits.
LENGTHS = np.arange(1, 2049)
_PRECISION = {"FP16": "w16a16kv16", "INT4": "w4a4kv4"}
#: What a deployment of that precision computes in: 4-bit weights, FP16 arithmetic.
_CORRECTED_PRECISION = {"FP16": "fp16", "INT4": "w4a16"}


@dataclass(frozen=True, slots=True)
class _Quantity:
    """One of the four printed quantities.

    Attributes:
        name: its name in the data.
        title: its heading in the paper.
        unit: the unit it is printed in.
        scale: SI units per printed unit.
        value: reads it from LLM-Viewer's result.
        corrected: reads it from this project's estimate.
        page: rounds it as LLM-Viewer's page does.
    """

    name: str
    title: str
    unit: str
    scale: float
    value: Callable[[Estimate], Any]
    corrected: Callable[[Estimate], Any]
    page: Callable[[Any], Any]


_QUANTITIES = (
    _Quantity("flops", "FLOPs (TB)", "TFLOP", 1e12,
              lambda r: r.totals.flops, lambda c: c.totals.flops, page_value),
    _Quantity("prefill_time", "Prefill time", "ms", 1e-3,
              lambda r: r.totals.time_s, lambda c: c.totals.ttft_s, page_time_s),
    _Quantity("total_memory", "Total memory", "GB", 1e9,
              lambda r: r.totals.hbm_bytes, lambda c: c.totals.hbm_bytes, page_value),
    _Quantity("storing_activation", "Storing activation", "GB", 1e9,
              lambda r: r.memory.activation_bytes_written,
              lambda c: c.memory.activation_bytes_written, page_value),
)  # fmt: skip

COLUMNS = (
    Column("cell", "Cell"),
    Column("model", "Model"),
    Column("precision", "Precision"),
    Column("row", "Row"),
    Column("quantity", "Quantity"),
    Column("unit", "Unit"),
    Column("published", "Published"),
    Column("sequence_length", "Length used", "tokens"),
    Column("recomputed", "700 / 70", digits=5),
    Column("page_value", "Page shows", wide=True),
    Column("relative_error", "Deviation", "1"),
    Column("printed_by_first", "From", "tokens"),
    Column("printed_by_last", "To", "tokens"),
    Column("printed_by", "Printed by", "tokens"),
    Column("stated_length", "Stated length", "tokens"),
    Column("stated", "616 / 80", digits=4),
    Column("published_over_stated", "Published over stated", "1"),
    Column("corrected", "Corrected", digits=4),
    Column("corrected_footprint_gb", "Footprint, corrected", "GB", digits=4),
    Column("verdict", "Verdict"),
    Column("note", "Remark"),
)
_SHOWN = (
    "quantity", "unit", "published", "recomputed", "page_value", "printed_by", "stated",
    "corrected", "verdict",
)  # fmt: skip


def _evaluate(row: PruMergeRow, device: str, length: Any) -> Estimate:
    return get_convention("llmviewer-2024-02").evaluate(
        load_model(f"llama-2-{row.model}"),
        hardware=device,
        visual_tokens=length,
        text_tokens=0,
        precision=_PRECISION[row.precision],
    )


def _printed(quantity: _Quantity, precision: str, value: Any) -> tuple[Any, Any]:
    """Return (the value behind the cell, the value its authors had on the page), printed unit."""
    # LLM-Viewer prints the same operations at any bit width; the authors divided the FP16 cell by 4.
    divide = 4 if quantity.name == "flops" and precision == "INT4" else 1
    page = np.round(quantity.page(value) / quantity.scale / divide, 9)
    return value / quantity.scale / divide, page if page.ndim else page.item()


def _cells(row: PruMergeRow, table: PruMergeTable) -> list[dict[str, Any]]:
    length, stated = table.lengths[row.row], table.stated[row.row]
    stated_length = stated.visual_tokens + stated.text_tokens
    used = _evaluate(row, table.device, length)
    as_stated = _evaluate(row, table.device, stated_length)
    scan = _evaluate(row, table.device, LENGTHS)
    precision = _CORRECTED_PRECISION[row.precision]
    own = own_cost(f"llava-1.5-{row.model}", precision, stated.visual_tokens, stated.text_tokens)
    footprint = float(own.memory.peak_memory_bytes) / 1e9
    cells = []
    for quantity in _QUANTITIES:
        published = getattr(row, quantity.name)
        printed = partial(_printed, quantity, row.precision)
        value, page = printed(quantity.value(used))
        stated_value = printed(quantity.value(as_stated))[0]
        prints = prints_as(printed(quantity.value(scan))[1], published)
        lengths = interval_of(prints, LENGTHS)
        same = prints_as(page, published)
        cell = f"{row.model}-{row.precision}-{row.row}-{quantity.name}"
        cells.append(
            {
                "cell": cell,
                "model": f"Vicuna-{row.model.upper()}",
                "precision": row.precision,
                "row": row.row,
                "quantity": quantity.title,
                "unit": quantity.unit,
                "published": published,
                "sequence_length": length,
                "recomputed": value,
                "page_value": page,
                "relative_error": value / float(published) - 1,
                "printed_by_first": None if lengths is None else lengths[0],
                "printed_by_last": None if lengths is None else lengths[1],
                "printed_by": _range(lengths),
                "stated_length": stated_length,
                "stated": stated_value,
                "published_over_stated": float(published) / stated_value - 1,
                "corrected": float(quantity.corrected(own)) / quantity.scale,
                "corrected_footprint_gb": footprint if quantity.name == "total_memory" else None,
                "verdict": SAME_DIGITS if same else DIFFERS,
                "note": _remark(cell, table, published, value, same=bool(same)),
            }
        )
    return cells


def _range(lengths: tuple[int, int] | None) -> str:
    if lengths is None:
        return "none"
    first, last = lengths
    return str(first) if first == last else f"{first} to {last}"


def _remark(
    cell: str, table: PruMergeTable, published: str, value: float, *, same: bool
) -> str | None:
    remark = table.remarks.get(cell)
    if remark is None and same and not prints_as(value, published):
        return "the last digit is no digit: the page shows one decimal less"
    return remark


def _reductions(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return by what factor PruMerge reduces each quantity, published and recomputed."""
    by_cell = {row["cell"]: row for row in rows}
    reductions = []
    for cell, pruned in by_cell.items():
        if pruned["row"] != "PruMerge":
            continue
        full = by_cell[cell.replace("PruMerge", "LLaVA-1.5")]
        reductions.append(
            {
                "model": pruned["model"],
                "precision": pruned["precision"],
                "quantity": pruned["quantity"],
                "published": float(full["published"]) / float(pruned["published"]),
                "recomputed": full["recomputed"] / pruned["recomputed"],
                "stated": full["stated"] / pruned["stated"],
                "corrected": full["corrected"] / pruned["corrected"],
            }
        )
    return reductions


def build() -> Reproduction:
    """Recompute all 32 cells."""
    table = load_published("prumerge_table2", PruMergeTable)
    rows = [cell for row in table.rows for cell in _cells(row, table)]
    missed = [row["cell"] for row in rows if row["verdict"] != SAME_DIGITS]
    kept = [abs(row["relative_error"]) for row in rows if row["verdict"] == SAME_DIGITS]
    away = [abs(row["published_over_stated"]) for row in rows]
    first = _reductions(rows)
    flops, time = first[0], first[1]
    return Reproduction(
        "prumerge-table2",
        TITLE,
        str(table.source),
        COLUMNS,
        tuple(rows),
        {
            "cells": len(rows),
            "printed_digits_reproduced": len(rows) - len(missed),
            "not_reproduced": missed,
            "convention": "llmviewer-2024-02",
            "device": table.device,
            "lengths_used": dict(table.lengths),
            "lengths_stated": {
                name: prompt.visual_tokens + prompt.text_tokens
                for name, prompt in table.stated.items()
            },
            "max_abs_relative_error": max(kept),
            "mean_abs_published_over_stated": sum(away) / len(away),
            "max_abs_published_over_stated": max(away),
            "reductions": first,
            "grade": table.source.grade,
        },
        (
            "Recomputed with LLM-Viewer of February 2024 on its nvidia_V100, prefill, batch 1, "
            "without flash attention, at 700 and 70 tokens; the text states 616 and 80.",
            "At the stated lengths 7B FP16 FLOPs fall "
            f"{flops['stated']:.1f} times (published {flops['published']:.1f}), prefill "
            f"{time['stated']:.1f} times ({time['published']:.1f}); with vision tower and "
            f"projector FLOPs fall {flops['corrected']:.1f} times.",
            "INT4 FLOPs are FP16 divided by 4; INT4 times use all operations at 62 TOPS.",
            "Total memory is bytes moved and storing activation bytes written over the whole "
            "prefill; neither is memory in use.",
            "Corrected: 576 or 40 visual and 40 text tokens with vision tower, projector and "
            "output head, INT4 as 4-bit weights in FP16 arithmetic, on the ideal roofline of a "
            "V100 PCIe with fused attention; PruMerge's own cost is left out.",
        ),
        shown=_SHOWN,
        group_by=("model", "precision", "row"),
    )
