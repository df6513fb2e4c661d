"""Qwen2-VL's language model and Qwen2.5-VL's: Qwen2's layer with positions in three axes."""

from __future__ import annotations

from costmodel.models.decoders.gated import gated

DECODER = gated(
    "qwen2_vl_text",
    "Qwen2-VL's language model",
    {
        "vocab_size": 152064,
        "hidden_size": 8192,
        "intermediate_size": 29568,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-5,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "max_window_layers": 80,
    },
    qkv_bias=True,
    whole_heads=True,
    switched_window=True,
)
