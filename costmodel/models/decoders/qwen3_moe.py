"""Qwen3 with experts, the language model of InternVL3.5-30B-A3B; configuration_qwen3_moe.py."""

from __future__ import annotations

from costmodel.models.decoders.experts import gated_experts

DECODER = gated_experts(
    "qwen3_moe",
    "Qwen3 with experts",
    "moe_intermediate_size",
    {
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 24,
        "num_key_value_heads": 4,
        "max_position_embeddings": 32768,
        "attention_bias": False,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "max_window_layers": 0,
        "decoder_sparse_step": 1,
        "moe_intermediate_size": 768,
        "num_experts_per_tok": 8,
        "num_experts": 128,
        "mlp_only_layers": [],
    },
    says_biases=True,
    switched_window=True,
    qk_norm=True,
)
