"""Llama: where its biases are."""

from __future__ import annotations

from costmodel.blocks import Project
from costmodel.models import config_dict
from costmodel.models.families import read_model


def test_it_says_its_biases() -> None:
    document = config_dict("llama-2-7b") | {"attention_bias": True, "mlp_bias": True}
    text = read_model(document, "f", "biased", "s").text
    biased = [b.name for b in text.stack.kinds[0] if isinstance(b, Project) and b.bias]
    assert biased == ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
