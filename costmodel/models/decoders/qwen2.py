"""Qwen2: Llama's layer with biased q, k and v, and a window where it says so; configuration_qwen2.py."""

from __future__ import annotations

from costmodel.models.decoders.gated import gated

DECODER = gated(
    "qwen2",
    "Qwen2",
    {
        "vocab_size": 151936,
        "intermediate_size": 22016,
        "num_key_value_heads": 32,
        "max_position_embeddings": 32768,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "max_window_layers": 28,
    },
    qkv_bias=True,
    switched_window=True,
)
