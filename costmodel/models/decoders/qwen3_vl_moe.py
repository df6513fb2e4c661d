"""Qwen3-VL's language model of experts: a router chooses some for every token; modeling_qwen3_vl_moe.py."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from costmodel.models.decoders import Decoder
from costmodel.models.decoders.gated import DEFAULTS, Kind, read_gated, with_blocks

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
    # What checkpoints call num_experts, transformers writes under another name.
    name = "num_local_experts" if "num_local_experts" in section else "num_experts"
    n, k = section.whole(name), section.whole("num_experts_per_tok")
    if k > n:
        raise section.fail("num_experts_per_tok", f"({k}) is more than {name} ({n})")
    step = section.whole("decoder_sparse_step")
    plain = section.raw("mlp_only_layers") or []
    if not isinstance(plain, list):
        raise section.fail("mlp_only_layers", f"must be a list of layers, not {plain!r}")
    text = replace(
        dense, experts=n, chosen_experts=k, expert_size=section.whole("moe_intermediate_size")
    )
    sparse = [i not in plain and (i + 1) % step == 0 for i in range(text.num_layers)]
    return with_blocks(text, [Kind(sparse=each) for each in sparse])


DECODER = Decoder("Qwen3-VL's language model of experts", _DEFAULTS, _read)
