"""Qwen2: Llama's layer with biased q, k and v, and a window where it says so; configuration_qwen2.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.models.decoders import Decoder
from costmodel.models.decoders.gated import DEFAULTS, read_gated

if TYPE_CHECKING:
    from costmodel.models.reading import Section
    from costmodel.models.text import TextConfig

_DEFAULTS = DEFAULTS | {
    "vocab_size": 151936,
    "intermediate_size": 22016,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32768,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
}


def _read(section: Section, tied: bool | None) -> TextConfig:
    return read_gated(section, "qwen2", _DEFAULTS, tied, qkv_bias=True, switched_window=True)


DECODER = Decoder("Qwen2", _DEFAULTS, _read)
