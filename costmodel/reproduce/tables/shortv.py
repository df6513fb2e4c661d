"""ShortV, Tables 1 and 2: FLOPs with visual tokens frozen in N layers, beside FastV and VTW."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.conventions import get_convention
from costmodel.conventions.decoder import text_shape
from costmodel.conventions.shortv import frozen_layer_flops
from costmodel.reproduce.counted_models import counted_model
from costmodel.reproduce.paper_table import build_paper_table, visual_schedule

if TYPE_CHECKING:
    from costmodel.reproduce.published import PaperRow
    from costmodel.reproduce.reproduction import Reproduction

TITLE = "ShortV, Tables 1 and 2: FLOPs of three FFN matrices, 64 text tokens"

_CONVENTION = get_convention("shortv")


def _recompute(row: PaperRow) -> float:
    shape = text_shape(counted_model(row.shape))
    result = _CONVENTION.evaluate(
        shape,
        visual_tokens=row.visual,
        text_tokens=row.text,
        llm_visual_tokens_per_layer=visual_schedule(row, shape.num_layers),
    )
    total = float(result.totals["flops"])
    if row.frozen_layers:
        text = _CONVENTION.default_text_tokens if row.text is None else row.text
        frozen = frozen_layer_flops(shape, row.visual, text)
        total -= row.frozen_layers * (total / shape.num_layers - frozen)
    return total / 1e12


def build() -> Reproduction:
    """Recompute the tables."""
    return build_paper_table(
        "shortv",
        TITLE,
        lambda row: _CONVENTION.default_text_tokens if row.text is None else row.text,
        _recompute,
        (
            "A frozen layer computes text tokens in full and only keys and values of visual ones.",
            "FastV and VTW rows: K layers see all visual tokens, the rest half or none.",
        ),
    )
