"""Llama and its descendants (Vicuna): configuration_llama.py and modeling_llama.py of `transformers`."""

from __future__ import annotations

from costmodel.models.decoders.gated import gated

DECODER = gated(
    "llama",
    "Llama",
    {"attention_bias": False, "mlp_bias": False},
    says_biases=True,
    whole_heads=True,
)
