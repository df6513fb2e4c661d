"""Mistral: Llama's layer with a sliding window; configuration_mistral.py of `transformers`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.models.decoders import Decoder
from costmodel.models.decoders.gated import DEFAULTS, read_gated

if TYPE_CHECKING:
    from costmodel.models.reading import Section
    from costmodel.models.text import TextConfig

_DEFAULTS = DEFAULTS | {
    "intermediate_size": 14336,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "sliding_window": 4096,
}


def _read(section: Section, tied: bool | None) -> TextConfig:
    return read_gated(section, "mistral", _DEFAULTS, tied)


DECODER = Decoder("Mistral", _DEFAULTS, _read)
