"""Qwen3-VL's language model: Qwen3's layer, features of the tower added behind the first layers.

modeling_qwen3_vl.py of `transformers` (deepstack). How many features there are, the tower says.
"""

from __future__ import annotations

from costmodel.models.decoders.gated import gated

DECODER = gated(
    "qwen3_vl_text",
    "Qwen3-VL's language model",
    {
        "vocab_size": 151936,
        "intermediate_size": 22016,
        "num_key_value_heads": 32,
        "head_dim": 128,
        "max_position_embeddings": 128000,
        "attention_bias": False,
    },
    says_biases=True,
    qk_norm=True,
)
