"""The common shape of a paper's reproduction: recompute every row, compare, judge, add up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costmodel.reproduce.digits import prints_as
from costmodel.reproduce.published import PaperTable, load_published
from costmodel.reproduce.reproduction import DIFFERS, SAME_DIGITS, WITHIN, Column, Reproduction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from costmodel.reproduce.published import PaperRow

COLUMNS = (
    Column("model", "Model"),
    Column("method", "Method"),
    Column("part", "Part"),
    Column("visual_tokens", "Visual tokens", "tokens"),
    Column("text_tokens", "Text tokens", "tokens"),
    Column("unit", "Unit"),
    Column("published", "Published"),
    Column("recomputed", "Recomputed", digits=5),
    Column("relative_error", "Deviation", "1"),
    Column("verdict", "Verdict"),
    Column("gated", "Gated"),
    Column("note", "Remark"),
)
_SHOWN = ("method", "part", "unit", "published", "recomputed", "relative_error", "verdict")


def visual_schedule(row: PaperRow, num_layers: int) -> list[float] | None:
    """Return the visual tokens each layer sees, unrounded as the papers compute them.

    FastV and VTW: k layers see all, the rest (1 - prune) of them. PyramidDrop: four stages of equal
    depth, each `stage_ratio` of the one before. None where every layer sees `row.visual`.

    Args:
        row: the published row.
        num_layers: layers of the language model.
    """
    if row.k is not None and row.prune is not None:
        kept = row.visual * (1 - row.prune)
        return [row.visual] * row.k + [kept] * (num_layers - row.k)
    if row.stage_ratio is not None:
        ends = [num_layers * stage // 4 for stage in range(1, 5)]
        stage_of = [sum(layer >= end for end in ends) for layer in range(num_layers)]
        return [row.visual * row.stage_ratio**stage for stage in stage_of]
    return None


def build_paper_table(
    name: str,
    title: str,
    text_tokens: Callable[[PaperRow], Any],
    recompute: Callable[[PaperRow], float],
    notes: Sequence[str],
) -> Reproduction:
    """Recompute every row of a paper's data file.

    A row prints the same digits, lies within the file's tolerance, or differs; a row that differs
    and is gated must carry the reason.

    Args:
        name: the table's name.
        title: what it is.
        text_tokens: the text length a row is counted with, for the reader.
        recompute: the value of a row, in the row's own unit.
        notes: remarks for the reader.
    """
    table = load_published(name.replace("-", "_"), PaperTable)
    rows = []
    for row in table.rows:
        value = recompute(row)
        error = value / float(row.published) - 1
        if prints_as(value, row.published):
            verdict = SAME_DIGITS
        else:
            verdict = WITHIN if abs(error) <= table.tolerance else DIFFERS
        remarks = [
            row.misfit if verdict == DIFFERS else None,
            "counted at the mean over layers, a lower bound: the schedule is not given"
            if row.layer_mean
            else None,
            row.note,
        ]
        rows.append(
            {
                "model": row.model,
                "method": row.method,
                "part": row.part,
                "visual_tokens": row.visual,
                "text_tokens": text_tokens(row),
                "unit": row.unit,
                "published": row.published,
                "recomputed": value,
                "relative_error": error,
                "verdict": verdict,
                "gated": row.gated,
                "note": "; ".join(remark for remark in remarks if remark) or None,
            }
        )
    return Reproduction(
        name,
        title,
        str(table.source),
        COLUMNS,
        tuple(rows),
        _summary(rows, table),
        tuple(notes),
        shown=tuple(name for name in _SHOWN if any(row[name] is not None for row in rows)),
        group_by=("model",),
    )


def _label(row: dict[str, Any]) -> str:
    return f"{row['model']}, {row['method']}"


def _summary(rows: list[dict[str, Any]], table: PaperTable) -> dict[str, Any]:
    fitting = [abs(row["relative_error"]) for row in rows if row["verdict"] != DIFFERS]
    gated = [
        abs(row["relative_error"]) for row in rows if row["gated"] and row["verdict"] != DIFFERS
    ]
    return {
        "rows": len(rows),
        "same_digits": sum(row["verdict"] == SAME_DIGITS for row in rows),
        "within_tolerance": sum(row["verdict"] == WITHIN for row in rows),
        "differ": [_label(row) for row in rows if row["verdict"] == DIFFERS],
        "gated": sum(row["gated"] for row in rows),
        "gated_differ": [_label(row) for row in rows if row["gated"] and row["verdict"] == DIFFERS],
        "tolerance": table.tolerance,
        "max_abs_relative_error_gated": max(gated, default=None),
        "mean_abs_relative_error": sum(fitting) / len(fitting) if fitting else None,
        "grade": table.source.grade,
    }
