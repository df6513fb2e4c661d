"""The common shape of a paper's reproduction: recompute every row, compare, judge, add up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costmodel.conventions import get_convention
from costmodel.conventions.decoder import text_shape
from costmodel.conventions.shortv import frozen_layer_flops
from costmodel.reproduce.counted_models import counted_model
from costmodel.reproduce.digits import prints_as
from costmodel.reproduce.published import PaperTable, load_published
from costmodel.reproduce.reproduction import DIFFERS, SAME_DIGITS, WITHIN, Column, Reproduction

if TYPE_CHECKING:
    from costmodel.reproduce.papers import Paper
    from costmodel.reproduce.published import PaperRow
    from costmodel.result import Estimate

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
    """
    if row.k is not None and row.prune is not None:
        kept = row.visual * (1 - row.prune)
        return [row.visual] * row.k + [kept] * (num_layers - row.k)
    if row.stage_ratio is not None:
        ends = [num_layers * stage // 4 for stage in range(1, 5)]
        stage_of = [sum(layer >= end for end in ends) for layer in range(num_layers)]
        return [row.visual * row.stage_ratio**stage for stage in stage_of]
    return None


def recompute(paper: Paper, row: PaperRow) -> float:
    """Return the value of a row, in the row's own unit."""
    convention, model = get_convention(paper.name), counted_model(row.shape)
    layers = text_shape(model).num_layers
    schedule = visual_schedule(row, layers)

    def count(visual: float, text: float | None, per_layer: list[float] | None = None) -> Estimate:
        return convention.evaluate(
            model, visual_tokens=visual, text_tokens=text, llm_visual_tokens_per_layer=per_layer
        )

    if row.unit.startswith("%"):
        # The mean of the ratios of several prompts is not the ratio of the means.
        whole = row.visual if row.of is None else row.of
        ratios = [
            count(row.visual, text, schedule).totals.flops / count(whole, text).totals.flops
            for text in ([row.text] if row.text is not None else paper.text_lengths)
        ]
        return float(100 * sum(ratios) / len(ratios))
    stages = count(row.visual, row.text, schedule).stages
    decoder = stages["prefill"].flops
    if row.frozen_layers:
        text = (convention.default_text_tokens or 0) if row.text is None else row.text
        frozen = frozen_layer_flops(text_shape(model), row.visual, text)
        decoder -= row.frozen_layers * (decoder / layers - frozen)
    parts = {
        "vision": row.crops * (stages["vision"].flops or 0),
        "projector": row.crops * (stages["projector"].flops or 0),
        "llm": decoder,
    }
    if row.prefusion_layers:
        unreduced = count(model.default_visual_tokens, row.text).stages["prefill"].flops
        parts["prefusion"] = row.prefusion_layers * unreduced / layers
    value = sum(parts.values()) if row.part in (None, "total") else parts[row.part]
    return float(value) / (1e9 * layers if row.unit.endswith("/layer") else 1e12)


def _text_tokens(paper: Paper, row: PaperRow) -> float:
    """Return the text length that a row is counted with, for the reader."""
    convention = get_convention(paper.name)
    if not convention.counts_text:
        return 0
    if row.text is not None:
        return row.text
    lengths = [convention.default_text_tokens or 0 if t is None else t for t in paper.text_lengths]
    return lengths[0] if len(lengths) == 1 else round(sum(lengths) / len(lengths), 2)


def build_paper_table(paper: Paper) -> Reproduction:
    """Recompute every row of a paper's data file.

    A row prints the same digits, lies within the file's tolerance, or differs; a row that differs
    and is gated must carry the reason.
    """
    table = load_published(paper.name.replace("-", "_"), PaperTable)
    rows = []
    for row in table.rows:
        value = recompute(paper, row)
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
                "text_tokens": _text_tokens(paper, row),
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
        paper.name,
        paper.title,
        str(table.source),
        COLUMNS,
        tuple(rows),
        _summary(rows, table),
        paper.notes,
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
