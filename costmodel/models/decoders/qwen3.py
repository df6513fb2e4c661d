"""Qwen3: Llama's layer with normed heads of q and k, whose dim is its own; configuration_qwen3.py."""

from __future__ import annotations

from costmodel.models.decoders.gated import gated

DECODER = gated(
    "qwen3",
    "Qwen3",
    {
        "vocab_size": 151936,
        "intermediate_size": 22016,
        "num_key_value_heads": 32,
        "head_dim": 128,
        "max_position_embeddings": 32768,
        "attention_bias": False,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "max_window_layers": 28,
    },
    says_biases=True,
    switched_window=True,
    qk_norm=True,
)
