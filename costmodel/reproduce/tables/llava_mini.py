"""LLaVA-Mini, Tables 6 and 14: FLOPs by calflops, by part of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.conventions import get_convention
from costmodel.reproduce.counted_models import shipped_model
from costmodel.reproduce.paper_table import build_paper_table

if TYPE_CHECKING:
    from costmodel.reproduce.published import PaperRow
    from costmodel.reproduce.reproduction import Reproduction

TITLE = "LLaVA-Mini, Tables 6 and 14: FLOPs by calflops, vision tower without attention"

_CONVENTION = get_convention("llava-mini")


def _recompute(row: PaperRow) -> float:
    model = shipped_model(row.shape)
    result = _CONVENTION.evaluate(model, visual_tokens=row.visual, text_tokens=row.text)
    parts = {
        "vision": row.crops * result.stages["vision"].flops,
        "projector": row.crops * result.stages["projector"].flops,
        "llm": result.stages["prefill"].flops,
    }
    if row.prefusion_layers:
        whole = _CONVENTION.evaluate(
            model, visual_tokens=model.default_visual_tokens, text_tokens=row.text
        )
        layer = whole.stages["prefill"].flops / model.text.num_layers
        parts["prefusion"] = row.prefusion_layers * layer
    value = sum(parts.values()) if row.part == "total" else parts[str(row.part)]
    return float(value) / 1e12


def build() -> Reproduction:
    """Recompute the tables."""
    return build_paper_table(
        "llava-mini",
        TITLE,
        lambda row: _CONVENTION.default_text_tokens if row.text is None else row.text,
        _recompute,
        (
            "At 576 + 40 tokens the language model's 8.177 is exact; calflops sees the tower's "
            "convolution and linear layers, not its attention (0.033 more).",
            "Table 6 and Table 14 disagree on LLaVA-Mini: 4 pre-fusion layers cost 1.00 in the one "
            "and 0.125 in the other, and the totals are the same.",
        ),
    )
