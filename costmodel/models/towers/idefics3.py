"""Idefics3's and SmolVLM's tower: SigLIP without its head; configuration_idefics3.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.models.towers import Tower
from costmodel.models.towers.siglip import siglip
from costmodel.models.towers.transformer import DEFAULTS, read_shape

if TYPE_CHECKING:
    from costmodel.models.reading import Section
    from costmodel.models.vision import VisionConfig

_DEFAULTS = DEFAULTS | {
    "hidden_size": 1152,
    "num_attention_heads": 16,
    "patch_size": 32,
    "hidden_act": "gelu_pytorch_tanh",
}


def _read(section: Section) -> VisionConfig:
    return siglip(section, read_shape(section, _DEFAULTS), pools=False)


TOWER = Tower("SigLIP of Idefics3", _DEFAULTS, _read)
