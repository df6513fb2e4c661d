"""Qwen2.5-VL's tower: windows of 8 x 8 patches in most layers; modeling_qwen2_5_vl.py of `transformers`.

The patches are laid out window by window before the layers, and back again behind the merger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.blocks import Activate, Angles, Block, Norm, Project, Residual, Shuffle, Stack, dense
from costmodel.models.towers import Tower
from costmodel.models.towers.native import KEYS, attention, indices, read_shape
from costmodel.models.towers.transformer import patches
from costmodel.models.vision import VisionConfig

if TYPE_CHECKING:
    from costmodel.models.reading import Section

#: Values of `Qwen2_5_VLVisionConfig`; checkpoints are 1280 wide, not 3584.
_DEFAULTS = {
    "depth": 32,
    "hidden_size": 3584,
    "intermediate_size": 3420,
    "num_heads": 16,
    "in_channels": 3,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "hidden_act": "silu",
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "out_hidden_size": 3584,
}


def _layer(c: int, f: int, h: int, function: str, pieces: str) -> tuple[Block, ...]:
    return (
        Norm("norm1", c, "entering", "rms", after_residual=True),
        *attention(c, h, pieces),
        Norm("norm2", c, "mlp", "rms", after_residual=True),
        Project(
            "gate_up_proj", c, (("gate_proj", f), ("up_proj", f)), "mlp", bias=True,
            reads="mlp_input",
        ),
        Activate("act_mul", f, "mlp", function, gated=True),
        dense("down_proj", f, c, "mlp", bias=True, reads="mlp_hidden"),
        Residual("mlp_residual", c, "mlp"),
    )  # fmt: skip


def _read(section: Section) -> VisionConfig:
    shape = read_shape(section, _DEFAULTS)
    c, h, layers = shape["hidden_size"], shape["num_heads"], shape["num_layers"]
    f, function = section.whole("intermediate_size"), section.word("hidden_act")
    window = section.whole("window_size", most=100_000) // shape["patch_size"]
    window -= window % shape["merge"]
    if not window:
        raise section.fail("window_size", "is smaller than one token")
    full = indices(section, "fullatt_block_indexes", layers)
    return VisionConfig(
        family="qwen2_5_vl",
        **shape,
        intermediate_size=f,
        patch_bias=False,
        activation=function,
        window=window,
        stack=Stack(
            before=(
                patches(shape, bias=False),
                Shuffle("window_order", c, "patch"),
                Angles(c // h, rows="patch"),
                Shuffle("window_angles", 2 * (c // h), "patch"),
            ),
            kinds=(_layer(c, f, h, function, "images"), _layer(c, f, h, function, "windows")),
            pattern=tuple(int(layer not in full) for layer in range(layers)),
            after=(),
            labels=("", "[windows]"),
        ),
    )


TOWER = Tower("Qwen2.5-VL", _DEFAULTS, _read, KEYS)
