"""Qwen3-VL's language model: Qwen3's layer, features of the tower added behind the first layers.

modeling_qwen3_vl.py of `transformers` (deepstack). How many features there are, the tower says.
"""

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
    "max_position_embeddings": 128000,
    "attention_bias": False,
}


def _read(section: Section, tied: bool | None) -> TextConfig:
    return read_gated(section, "qwen3_vl_text", _DEFAULTS, tied, says_biases=True, qk_norm=True)


DECODER = Decoder("Qwen3-VL's language model", _DEFAULTS, _read)
