"""Qwen2-VL's language model and Qwen2.5-VL's: Qwen2's layer with positions in three axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.models.decoders import Decoder
from costmodel.models.decoders.gated import DEFAULTS, read_gated

if TYPE_CHECKING:
    from costmodel.models.reading import Section
    from costmodel.models.text import TextConfig

_DEFAULTS = DEFAULTS | {
    "vocab_size": 152064,
    "hidden_size": 8192,
    "intermediate_size": 29568,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-5,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 80,
}


def _read(section: Section, tied: bool | None) -> TextConfig:
    return read_gated(
        section, "qwen2_vl_text", _DEFAULTS, tied, qkv_bias=True, whole_heads=True,
        switched_window=True,
    )  # fmt: skip


DECODER = Decoder("Qwen2-VL's language model", _DEFAULTS, _read)
