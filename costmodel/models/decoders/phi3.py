"""Phi-3: Llama's layer whose q, k and v are one product, and gate and up another; modeling_phi3.py."""

from __future__ import annotations

from costmodel.models.decoders.gated import gated

DECODER = gated(
    "phi3",
    "Phi-3",
    {
        "vocab_size": 32064,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "sliding_window": None,
    },
    one_qkv=True,
)
