"""Gemma: Llama's layer with norms whose scale is stored less one, scaled embeddings; modeling_gemma.py."""

from __future__ import annotations

from costmodel.models.decoders.gated import gated

DECODER = gated(
    "gemma",
    "Gemma",
    {
        "vocab_size": 256000,
        "hidden_size": 3072,
        "intermediate_size": 24576,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 256,
        "hidden_act": "gelu_pytorch_tanh",
        "max_position_embeddings": 8192,
        "attention_bias": False,
        "tie_word_embeddings": True,
    },
    says_biases=True,
    offset_norms=True,
)
