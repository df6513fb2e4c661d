"""DivPrune: the output of its repository's FLOPs script, mean over eleven prompt lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.conventions import get_convention
from costmodel.conventions.decoder import text_shape
from costmodel.conventions.divprune import TEXT_LENGTHS
from costmodel.reproduce.counted_models import counted_model
from costmodel.reproduce.paper_table import build_paper_table

if TYPE_CHECKING:
    from costmodel.conventions.result import Num
    from costmodel.reproduce.published import PaperRow
    from costmodel.reproduce.reproduction import Reproduction

TITLE = "DivPrune, tflops.py: MACs of two FFN matrices, eleven prompt lengths"


def _count(row: PaperRow, visual: Num, text: Num | None) -> float:
    result = get_convention("divprune").evaluate(
        text_shape(counted_model(row.shape)), visual_tokens=visual, text_tokens=text
    )
    return float(result.totals["flops"])


def _recompute(row: PaperRow) -> float:
    if row.of is not None:
        # The script averages the ratios of the eleven data sets, not the ratio of the averages.
        ratios = [_count(row, row.visual, t) / _count(row, row.of, t) for t in TEXT_LENGTHS]
        return 100 * sum(ratios) / len(ratios)
    return _count(row, row.visual, row.text) / 1e12


def build() -> Reproduction:
    """Recompute the script's output."""
    mean = round(sum(TEXT_LENGTHS) / len(TEXT_LENGTHS), 2)
    return build_paper_table(
        "divprune",
        TITLE,
        lambda row: mean if row.text is None else row.text,
        _recompute,
        (
            "Percentages are the mean of eleven ratios; the ratio of the two means is 15.87 %.",
            "Rows whose image or text tokens had to be solved are shown, not gated.",
        ),
    )
