"""Qwen2-VL's tower: full attention in every layer, LayerNorms; modeling_qwen2_vl.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.blocks import Angles, Stack
from costmodel.models.towers import Tower
from costmodel.models.towers.native import KEYS, native_layer, read_shape
from costmodel.models.towers.transformer import patches
from costmodel.models.vision import VisionConfig

if TYPE_CHECKING:
    from costmodel.models.reading import Section

#: What its config calls `hidden_size` is the width of the language model.
_DEFAULTS = {
    "depth": 32,
    "embed_dim": 1280,
    "hidden_size": 3584,
    "mlp_ratio": 4,
    "num_heads": 16,
    "in_channels": 3,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "hidden_act": "quick_gelu",
}


def _read(section: Section) -> VisionConfig:
    shape = read_shape(section, _DEFAULTS, width="embed_dim")
    c, h, layers = shape["hidden_size"], shape["num_heads"], shape["num_layers"]
    f, function = section.whole("mlp_ratio", most=1000) * c, section.word("hidden_act")
    return VisionConfig(
        family="qwen2_vl",
        **shape,
        intermediate_size=f,
        patch_bias=False,
        activation=function,
        stack=Stack(
            before=(patches(shape, bias=False), Angles(c // h, rows="patch")),
            kinds=(native_layer(c, f, h, function),),
            pattern=(0,) * layers,
            after=(),
        ),
    )


TOWER = Tower("Qwen2-VL", _DEFAULTS, _read, KEYS | {"hidden_size": "embed_dim"})
