"""Qwen3-VL's language model of experts: a router chooses some for every token; modeling_qwen3_vl_moe.py."""

from __future__ import annotations

from costmodel.models.decoders.experts import gated_experts

DECODER = gated_experts(
    "qwen3_vl_moe_text",
    "Qwen3-VL's language model of experts",
    "moe_intermediate_size",
    {
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "max_position_embeddings": 128000,
        "attention_bias": False,
        "tie_word_embeddings": True,
        "decoder_sparse_step": 1,
        "moe_intermediate_size": 1408,
        "num_experts_per_tok": 4,
        "num_experts": 60,
        "mlp_only_layers": [],
    },
    says_biases=True,
    qk_norm=True,
)
