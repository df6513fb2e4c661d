"""Qwen2: biased q, k and v; a window only where it says so."""

from __future__ import annotations

from costmodel.blocks import Project
from costmodel.models import config_dict, load_model
from costmodel.models.families import read_model

VISION = "llava-onevision-7b"


def test_only_q_k_and_v_have_a_bias() -> None:
    layer = load_model(VISION).text.stack.kinds[0]
    assert [b.name for b in layer if isinstance(b, Project) and b.bias] == ["qkv_proj"]


def test_a_window_needs_the_switch() -> None:
    document = config_dict(VISION)
    document["text_config"]["sliding_window"] = 1024
    assert read_model(document, "f", "n", "s").text.sliding_window is None
    document["text_config"]["use_sliding_window"] = True
    document["text_config"]["max_window_layers"] = 21
    assert read_model(document, "f", "n", "s").text.windows == (0,) * 21 + (1024,) * 7
