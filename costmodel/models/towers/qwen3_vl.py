"""Qwen3-VL's tower: learned positions resampled to the grid, full attention, deepstack; modeling_qwen3_vl.py.

Behind some layers a merger of its own makes features that the language model's first layers get.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.blocks import Angles, Resample, Stack
from costmodel.models.towers import Tower
from costmodel.models.towers.native import KEYS, indices, merger, native_layer, read_shape
from costmodel.models.towers.transformer import patches
from costmodel.models.vision import VisionConfig

if TYPE_CHECKING:
    from costmodel.models.reading import Section

_DEFAULTS = {
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_heads": 16,
    "in_channels": 3,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "hidden_act": "gelu_pytorch_tanh",
    "num_position_embeddings": 2304,
    "deepstack_visual_indexes": [8, 16, 24],
    "out_hidden_size": 3584,
}


def _read(section: Section) -> VisionConfig:
    shape = read_shape(section, _DEFAULTS)
    c, h, layers = shape["hidden_size"], shape["num_heads"], shape["num_layers"]
    f, function = section.whole("intermediate_size"), section.word("hidden_act")
    behind = indices(section, "deepstack_visual_indexes", layers)
    table = section.whole("num_position_embeddings")
    plain = native_layer(c, f, h, function)
    d = section.whole("out_hidden_size")
    stacked = (
        *plain,
        *merger(c, shape["merge"] ** 2, d, "layer", "deepstack", behind=True, rows="merged"),
    )
    return VisionConfig(
        family="qwen3_vl",
        **shape,
        intermediate_size=f,
        patch_bias=True,
        activation=function,
        deepstack=len(behind),
        stack=Stack(
            before=(
                patches(shape, bias=True),
                Resample("position", table, c, "patch"),
                Angles(c // h, rows="patch"),
            ),
            kinds=(plain, stacked),
            pattern=tuple(int(index in behind) for index in range(layers)),
            after=(),
            labels=("", "[deepstack]"),
        ),
    )


TOWER = Tower("Qwen3-VL", _DEFAULTS, _read, KEYS)
