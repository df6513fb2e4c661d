"""Mistral: grouped queries."""

from __future__ import annotations

from costmodel.models import load_model

NEXT = "llava-next-mistral-7b"


def test_grouped_queries() -> None:
    text = load_model(NEXT).text
    assert (text.num_heads, text.num_kv_heads) == (32, 8)
    assert text.layer_parameters == 2 * 4096**2 * 5 // 4 + 3 * 4096 * 14336 + 2 * 4096
