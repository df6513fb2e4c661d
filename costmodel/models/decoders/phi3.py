"""Phi-3: Llama's layer whose q, k and v are one product, and gate and up another; modeling_phi3.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.models.decoders import Decoder
from costmodel.models.decoders.gated import DEFAULTS, read_gated

if TYPE_CHECKING:
    from costmodel.models.reading import Section
    from costmodel.models.text import TextConfig

_DEFAULTS = DEFAULTS | {
    "vocab_size": 32064,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "sliding_window": None,
}


def _read(section: Section, tied: bool | None) -> TextConfig:
    return read_gated(section, "phi3", _DEFAULTS, tied, one_qkv=True)


DECODER = Decoder("Phi-3", _DEFAULTS, _read)
