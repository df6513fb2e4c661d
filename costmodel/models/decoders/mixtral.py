"""Mixtral: Mistral's layer with experts in place of its MLP; configuration_mixtral.py of `transformers`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.models.decoders import Decoder
from costmodel.models.decoders.experts import with_experts
from costmodel.models.decoders.gated import DEFAULTS, read_gated

if TYPE_CHECKING:
    from costmodel.models.reading import Section
    from costmodel.models.text import TextConfig

_DEFAULTS = DEFAULTS | {
    "intermediate_size": 14336,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "sliding_window": None,
    "num_experts_per_tok": 2,
    "num_local_experts": 8,
}


def _read(section: Section, tied: bool | None) -> TextConfig:
    return with_experts(
        section, read_gated(section, "mixtral", _DEFAULTS, tied), "intermediate_size"
    )


DECODER = Decoder("Mixtral", _DEFAULTS, _read)
