"""One model, one image, every way of counting: why 576 visual tokens cost 3.2 or 9.6 "TFLOPs"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costmodel.conventions import DecoderInput, get_convention
from costmodel.conventions.divprune import TEXT_LENGTHS
from costmodel.conventions.formula import FormulaRule, evaluate_formula
from costmodel.conventions.llava_mini import encoder_flops
from costmodel.models import load_model
from costmodel.reproduce.digits import prints_as
from costmodel.reproduce.own_model import own_cost
from costmodel.reproduce.published import Ladder, LadderFormula, LadderRow, load_published
from costmodel.reproduce.reproduction import (
    DIFFERS,
    SAME_DIGITS,
    SOLVED,
    WITHIN,
    Column,
    Reproduction,
)

if TYPE_CHECKING:
    from costmodel.models import ModelConfig

TITLE = "LLaVA-1.5-7B at 576 visual tokens under every way of counting"

COLUMNS = (
    Column("paper", "Paper"),
    Column("arxiv", "arXiv"),
    Column("convention", "Convention", wide=True),
    Column("counts", "Counts"),
    Column("ffn_matrices", "FFN matrices"),
    Column("text_tokens", "Text tokens", "tokens"),
    Column("vision", "Vision tower"),
    Column("lm_head", "Output head"),
    Column("published", "Published"),
    Column("unit", "Unit"),
    Column("recomputed", "Recomputed", digits=5),
    Column("recomputed_flops", "FLOPs by this convention", "1"),
    Column("relative_error", "Deviation", "1"),
    Column("verdict", "Verdict"),
    Column("grade", "Grade", wide=True),
    Column("note", "Remark"),
)
_SHOWN = (
    "paper", "convention", "counts", "ffn_matrices", "text_tokens", "vision", "published", "unit",
    "recomputed", "verdict", "grade",
)  # fmt: skip
#: Relative deviation up to which a rung counts as fitting.
TOLERANCE = 0.005


def _rung(row: LadderRow, model: ModelConfig, visual: int) -> dict[str, Any]:
    if row.formula is not None:
        counted = _by_formula(row.formula, model, visual)
    else:
        assert row.convention is not None  # noqa: S101 - a rung has one of both; narrows the type
        counted = _by_convention(row.convention, row.text_tokens, model, visual)
    total = counted["recomputed_flops"]
    value = total / model.text.num_layers / 1e9 if row.per_layer else total / 1e12
    error = value / float(row.published) - 1
    if row.formula is not None:
        verdict = SOLVED
    elif prints_as(value, row.published):
        verdict = SAME_DIGITS
    else:
        verdict = WITHIN if abs(error) <= TOLERANCE else DIFFERS
    return counted | {
        "paper": row.paper,
        "arxiv": row.arxiv,
        "convention": row.convention,
        "published": row.published,
        "unit": row.unit,
        "recomputed": value,
        "relative_error": error,
        "verdict": verdict,
        "grade": row.grade,
        "note": row.note,
    }


def _by_convention(
    name: str, text_tokens: int | None, model: ModelConfig, visual: int
) -> dict[str, Any]:
    convention = get_convention(name)
    result = convention.evaluate(
        model,
        # The tool behind a convention with times counts the same operations on any device.
        hardware=next(iter(convention.devices), None),
        visual_tokens=visual,
        text_tokens=text_tokens,
    )
    text: float | None = text_tokens
    if not convention.counts_text:
        text = 0
    elif text is None:
        text = convention.default_text_tokens
        if text is None:
            text = round(sum(TEXT_LENGTHS) / len(TEXT_LENGTHS), 1)
    return {
        "counts": "MAC" if convention.operations_per_mac == 1 else "FLOP",
        "ffn_matrices": convention.ffn_matrices,
        "text_tokens": text,
        "vision": "no" if result.stages["vision"].flops is None else "yes",
        "lm_head": "yes" if convention.counts_head else "no",
        "recomputed_flops": result.totals.flops,
    }


def _by_formula(formula: LadderFormula, model: ModelConfig, visual: int) -> dict[str, Any]:
    text = formula.total_tokens - visual
    encoder = encoder_flops if formula.encoder else None
    rule = FormulaRule(formula.ffn_matrices, formula.operations_per_mac, (text,), encoder)
    result = evaluate_formula(rule, {}, DecoderInput(model, visual))
    return {
        "counts": "MAC" if formula.operations_per_mac == 1 else "FLOP",
        "ffn_matrices": formula.ffn_matrices,
        "text_tokens": text,
        "vision": "yes" if formula.encoder else "no",
        "lm_head": "no",
        "recomputed_flops": result.totals.flops,
    }


def _own_rung(model: ModelConfig, visual: int) -> dict[str, Any]:
    total = int(own_cost(model, "fp16", visual, 40).totals.flops)
    return {
        "paper": "this project",
        "arxiv": None,
        "convention": "torch",
        "counts": "FLOP",
        "ffn_matrices": 3,
        "text_tokens": 40,
        "vision": "yes",
        "lm_head": "yes",
        "published": None,
        "unit": "TFLOPs",
        "recomputed": total / 1e12,
        "recomputed_flops": total,
        "relative_error": None,
        "verdict": None,
        "grade": None,
        "note": "what torch.utils.flop_counter counts, vision tower and projector included",
    }


def build() -> Reproduction:
    """Recompute every rung, lowest count first."""
    ladder = load_published("flops_ladder", Ladder)
    model = load_model(ladder.model)
    rows = [_rung(row, model, ladder.visual_tokens) for row in ladder.rows]
    rows.append(_own_rung(model, ladder.visual_tokens))
    rows.sort(key=lambda row: float(row["recomputed_flops"]))
    counts = [row["recomputed_flops"] for row in rows]
    return Reproduction(
        "flops-ladder",
        TITLE,
        "each row names its paper",
        COLUMNS,
        tuple(rows),
        {
            "rows": len(rows),
            "same_digits": sum(row["verdict"] == SAME_DIGITS for row in rows),
            "within_tolerance": sum(row["verdict"] == WITHIN for row in rows),
            "solved": sum(row["verdict"] == SOLVED for row in rows),
            "tolerance": TOLERANCE,
            "differ": [row["paper"] for row in rows if row["verdict"] == DIFFERS],
            "lowest_flops": min(counts),
            "highest_flops": max(counts),
            "spread": max(counts) / min(counts),
        },
        (
            "The same network and the same image: the spread is MAC or FLOP, two FFN matrices or "
            "three, the text that is added, and whether the vision tower is in it.",
            "Grade primary: read in the paper. Grade secondary: quoted by others, with the text "
            "length solved from the printed number; such a row shows what would give it, no more.",
        ),
        shown=_SHOWN,
    )
