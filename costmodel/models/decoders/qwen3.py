"""Qwen3: Llama's layer with normed heads of q and k, whose dim is its own; configuration_qwen3.py."""

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
    "head_dim": 128,
    "max_position_embeddings": 32768,
    "attention_bias": False,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
}


def _read(section: Section, tied: bool | None) -> TextConfig:
    return read_gated(
        section, "qwen3", _DEFAULTS, tied, says_biases=True, switched_window=True, qk_norm=True
    )


DECODER = Decoder("Qwen3", _DEFAULTS, _read)
