"""Llama and its descendants (Vicuna): configuration_llama.py and modeling_llama.py of `transformers`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.models.decoders import Decoder
from costmodel.models.decoders.gated import DEFAULTS, read_gated

if TYPE_CHECKING:
    from costmodel.models.reading import Section
    from costmodel.models.text import TextConfig

_DEFAULTS = DEFAULTS | {"attention_bias": False, "mlp_bias": False}


def _read(section: Section, tied: bool | None) -> TextConfig:
    return read_gated(section, "llama", _DEFAULTS, tied, says_biases=True, whole_heads=True)


DECODER = Decoder("Llama", _DEFAULTS, _read)
