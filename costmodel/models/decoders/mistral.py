"""Mistral: Llama's layer with a sliding window; configuration_mistral.py of `transformers`."""

from __future__ import annotations

from costmodel.models.decoders.gated import gated

DECODER = gated(
    "mistral",
    "Mistral",
    {
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
    },
)
