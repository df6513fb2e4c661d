"""Mixtral: Mistral's layer with experts in place of its MLP; configuration_mixtral.py of `transformers`."""

from __future__ import annotations

from costmodel.models.decoders.experts import gated_experts

DECODER = gated_experts(
    "mixtral",
    "Mixtral",
    "intermediate_size",
    {
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "sliding_window": None,
        "num_experts_per_tok": 2,
        "num_local_experts": 8,
    },
)
