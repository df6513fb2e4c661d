"""FastV, Tables 1 and 6: the computing budget by pruning layer and ratio."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.conventions import get_convention
from costmodel.conventions.decoder import text_shape
from costmodel.reproduce.counted_models import counted_model
from costmodel.reproduce.paper_table import build_paper_table, visual_schedule

if TYPE_CHECKING:
    from costmodel.reproduce.published import PaperRow
    from costmodel.reproduce.reproduction import Reproduction

TITLE = "FastV, Tables 1 and 6: MACs of two FFN matrices, mean of a layer"

_CONVENTION = get_convention("fastv")


def _count(row: PaperRow, schedule: list[float] | None) -> float:
    model = text_shape(counted_model(row.shape))
    result = _CONVENTION.evaluate(
        model,
        visual_tokens=row.visual,
        text_tokens=row.text,
        llm_visual_tokens_per_layer=schedule,
    )
    return float(result.totals["flops"]) / model.num_layers


def _recompute(row: PaperRow) -> float:
    layers = text_shape(counted_model(row.shape)).num_layers
    pruned = _count(row, visual_schedule(row, layers))
    if row.unit == "% of vanilla":
        return 100 * pruned / _count(row, None)
    return pruned / 1e9


def build() -> Reproduction:
    """Recompute the table."""
    return build_paper_table(
        "fastv",
        TITLE,
        lambda row: _CONVENTION.default_text_tokens if row.text is None else row.text,
        _recompute,
        (
            "n = 36 + 576 tokens before layer K, 36 + (1-R) x 576 behind it, unrounded.",
            "The 13B rows fit to 0.1 %, the 7B rows to 1.2 %.",
            "A SwiGLU FFN has three matrices: the model really computes 1.28 times this count.",
        ),
    )
