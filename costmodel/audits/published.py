"""The tables that `reproduce` recomputes, as tables to audit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.audits.shapes import full_tokens, shape_of
from costmodel.audits.table import Cell, PublishedTable, Schedule, parse_schedule
from costmodel.reproduce.papers import PAPERS
from costmodel.reproduce.published import PaperTable, PruMergeTable, load_published
from hardware_specs.errors import UnknownNameError

if TYPE_CHECKING:
    from costmodel.reproduce.published import PaperRow

PRUMERGE = "prumerge-table2"
#: PruMerge's columns: what they are, SI units, unit.
_TOOL_COLUMNS = {
    "flops": ("flops", 1e12, "T"),
    "prefill_time": ("time", 1e-3, "ms"),
    "total_memory": ("memory", 1e9, "GB"),
    "storing_activation": ("activation", 1e9, "GB"),
}
_UNITS = {"TMAC": 1e12, "TFLOP": 1e12, "GMAC/layer": 1e9}


def published_table(name: str) -> PublishedTable:
    """Return a table of `reproduce` as printed: its inputs as the paper states them, nothing solved.

    Raises:
        UnknownNameError: a table that is no list of counts.

    >>> len(published_table("prumerge-table2").cells)
    32
    """
    if name == PRUMERGE:
        return _prumerge()
    if name not in PAPERS:
        raise UnknownNameError(name, (*PAPERS, PRUMERGE), "table of counts")
    table = load_published(name.replace("-", "_"), PaperTable)
    cells = tuple(_cell(row) for row in table.rows)
    return PublishedTable(name, cells, {"paper": str(table.source)})


def _cell(row: PaperRow) -> Cell:
    percent = row.unit.startswith("%")
    return Cell(
        f"{row.model}, {row.method}", row.shape, _schedule(row), "flops", row.published,
        0.01 if percent else _UNITS[row.unit], "share" if percent else "",
        f"{row.model}, vanilla" if percent else None, row.unit, row.part or "total",
        row.unit.endswith("/layer"), images=row.crops,
    )  # fmt: skip


def _schedule(row: PaperRow) -> Schedule | None:
    """Return the schedule that the row states; lengths that were solved from the table are inferred."""
    if row.prefusion_layers:
        return None
    text = f"{'mean:' if row.layer_mean else '0:'}{row.visual:g}"
    if row.k is not None and row.prune is not None:
        kept = f"{round(1 - row.prune, 6):g}V"
        text = f"0:V;{row.k}:{kept}" if row.k else f"0:{kept}"
    elif row.stage_ratio is not None:
        counts = [row.visual * row.stage_ratio**stage for stage in range(4)]
        text = ";".join(f"{8 * stage}:{count:.9g}" for stage, count in enumerate(counts))
    elif row.frozen_layers:
        # Which layers are frozen changes nothing in a sum.
        text = f"0:V;{shape_of(row.shape).layers - row.frozen_layers}:frozen"
    full = row.of or (full_tokens(row.shape) if row.layer_mean else row.visual)
    inferred = not row.gated and not row.layer_mean
    return parse_schedule(text, full, kind="inferred" if inferred else "stated")


def _prumerge() -> PublishedTable:
    table = load_published("prumerge_table2", PruMergeTable)
    cells = []
    for row in table.rows:
        stated = table.stated[row.row]
        schedule = parse_schedule(f"0:{stated.visual_tokens}", 576)
        for column, (quantity, scale, unit) in _TOOL_COLUMNS.items():
            precision = {"FP16": "fp16", "INT4": "w4a16"}[row.precision]
            cells.append(
                Cell(row.row, f"llama-2-{row.model}", schedule, quantity, getattr(row, column),
                     scale, unit=unit, part="prefill" if quantity == "time" else "total",
                     precision=precision)
            )  # fmt: skip
    about = {"paper": str(table.source), "hardware": "Tesla V100", "says": "LLM-Viewer roofline"}
    return PublishedTable(PRUMERGE, tuple(cells), about, 40)
