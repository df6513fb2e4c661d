"""The decoders that stand in LLaVA beside Llama: counts are equal, with every method inside them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from methods_on_families import OnFamily
from tiny_families import CLIP, TEXT

from costmodel.methods import list_methods, method_info
from profiling.counting.three_counters import count_model

if TYPE_CHECKING:
    from pathlib import Path

#: Language model -> what its config says beside the shared numbers; the prompt has 45 tokens.
DECODERS: dict[str, dict[str, Any]] = {
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "mistral": {"head_dim": 16, "sliding_window": 16},
    "phi3": {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "sliding_window": 16},
    "gemma": {"head_dim": 16},
    "gemma3_text": {
        "head_dim": 16, "sliding_window": 16,
        "layer_types": ["sliding_attention"] * 5 + ["full_attention"] + ["sliding_attention"] * 2,
    },
}  # fmt: skip


@pytest.mark.parametrize("decoder", DECODERS)
def test_counts_are_equal(decoder: str, tmp_path: Path) -> None:
    text = {**TEXT, "num_hidden_layers": 8, "model_type": decoder, **DECODERS[decoder]}
    document = {
        "model_type": "llava", "text_config": text, "vision_config": CLIP, "image_token_index": 120,
        "projector_hidden_act": "gelu", "image_seq_length": 36,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(document))
    assert count_model(str(tmp_path), text_tokens=9, fvcore=False).agrees
    on = OnFamily(str(tmp_path), {})
    inside = [name for name in list_methods() if method_info(name).place == "llm-layer"]
    for method in ("divprune", *inside):
        stages = on.counted(method)
        assert stages is not None, method
        assert all(ours == torchs for ours, torchs in stages.values()), (method, stages)
