"""Qwen3-VL's language model of experts: a router chooses some for every token; modeling_qwen3_vl_moe.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.models.decoders import Decoder
from costmodel.models.decoders.experts import with_experts
from costmodel.models.decoders.gated import DEFAULTS, read_gated

if TYPE_CHECKING:
    from costmodel.models.reading import Section
    from costmodel.models.text import TextConfig

_DEFAULTS = DEFAULTS | {
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
}


def _read(section: Section, tied: bool | None) -> TextConfig:
    dense = read_gated(
        section, "qwen3_vl_moe_text", _DEFAULTS, tied, says_biases=True, qk_norm=True
    )
    return with_experts(section, dense, "moe_intermediate_size")


DECODER = Decoder("Qwen3-VL's language model of experts", _DEFAULTS, _read)
