"""SparseVLM, Table 1: the FLOPs column (the latencies beside it are measured, and not here)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.conventions import get_convention
from costmodel.conventions.decoder import text_shape
from costmodel.reproduce.counted_models import counted_model
from costmodel.reproduce.paper_table import build_paper_table

if TYPE_CHECKING:
    from costmodel.reproduce.published import PaperRow
    from costmodel.reproduce.reproduction import Reproduction

TITLE = "SparseVLM, Table 1: MACs of three FFN matrices, about 119 text tokens"

_CONVENTION = get_convention("sparsevlm")


def _recompute(row: PaperRow) -> float:
    result = _CONVENTION.evaluate(
        text_shape(counted_model(row.shape)), visual_tokens=row.visual, text_tokens=row.text
    )
    return float(result.totals["flops"]) / 1e12


def build() -> Reproduction:
    """Recompute the table."""
    return build_paper_table(
        "sparsevlm",
        TITLE,
        lambda row: _CONVENTION.default_text_tokens if row.text is None else row.text,
        _recompute,
        (
            "The text length is fitted to the rows without a schedule; the paper states none.",
            "Rows of methods that prune inside the model are counted at their mean token count, "
            "which is a lower bound: they are shown, not gated.",
        ),
    )
