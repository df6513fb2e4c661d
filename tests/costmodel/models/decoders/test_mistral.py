"""Mistral: grouped queries, a window in every layer."""

from __future__ import annotations

from costmodel.models import config_dict, load_model
from costmodel.models.families import read_model

NEXT = "llava-next-mistral-7b"


def test_grouped_queries() -> None:
    text = load_model(NEXT).text
    assert (text.num_heads, text.num_kv_heads) == (32, 8)
    assert text.layer_parameters == 2 * 4096**2 * 5 // 4 + 3 * 4096 * 14336 + 2 * 4096


def test_its_window() -> None:
    assert load_model(NEXT).text.sliding_window is None  # null in v0.2
    document = config_dict(NEXT)
    document["text_config"]["sliding_window"] = 4096
    assert read_model(document, "f", "n", "s").text.sliding_window == 4096
