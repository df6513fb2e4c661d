"""PyramidDrop, Tables 3 and 5-7: MACs of the image tokens alone, in four stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.conventions import get_convention
from costmodel.conventions.decoder import text_shape
from costmodel.reproduce.counted_models import counted_model
from costmodel.reproduce.paper_table import build_paper_table, visual_schedule

if TYPE_CHECKING:
    from costmodel.reproduce.published import PaperRow
    from costmodel.reproduce.reproduction import Reproduction

TITLE = "PyramidDrop, Tables 3 and 5-7: MACs of three FFN matrices, image tokens only"


def _recompute(row: PaperRow) -> float:
    shape = text_shape(counted_model(row.shape))
    result = get_convention("pyramiddrop").evaluate(
        shape,
        visual_tokens=row.visual,
        llm_visual_tokens_per_layer=visual_schedule(row, shape.num_layers),
    )
    return float(result.totals["flops"]) / 1e12


def build() -> Reproduction:
    """Recompute the tables."""
    return build_paper_table(
        "pyramiddrop",
        TITLE,
        lambda _: 0,
        _recompute,
        (
            "Four stages of equal depth see n, n lambda, n lambda^2, n lambda^3 tokens, unrounded.",
            "The printed number is multiply-accumulates: the FLOPs are twice that.",
        ),
    )
