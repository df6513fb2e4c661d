"""SigLIP's tower: patches alone, and a pooling head where a config keeps it; configuration_siglip.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costmodel.blocks import (
    Activate,
    Attend,
    Block,
    Learned,
    Norm,
    Plain,
    Positions,
    Project,
    Stack,
    dense,
)
from costmodel.models.towers import Tower
from costmodel.models.towers.transformer import DEFAULTS, encoder_layer, patches, read_shape
from costmodel.models.vision import VisionConfig

if TYPE_CHECKING:
    from costmodel.models.reading import Section

_DEFAULTS = DEFAULTS | {
    "patch_size": 16,
    "hidden_act": "gelu_pytorch_tanh",
    "vision_use_head": True,
}


def _pooling_head(c: int, f: int, h: int, function: str) -> tuple[Block, ...]:
    """One learned query per image attends to all tokens; `transformers` runs it, nobody reads it."""
    return (
        Learned(c),  # the query
        Plain(
            (
                dense("head_q_proj", c, c, "image", bias=True),
                Project("head_kv_proj", c, (("k_proj", c), ("v_proj", c)), "token", bias=True),
                Attend(h, h, c // h, causal=False, cached=False, written=True),
                dense("head_out_proj", c, c, "image", bias=True),
                Norm("head_norm", c, "image", "layer"),
                dense("head_fc1", c, f, "image", bias=True),
                Activate("head_gelu", f, "image", function),
                dense("head_fc2", f, c, "image", bias=True),
            )
        ),
    )


def _read(section: Section) -> VisionConfig:
    shape = read_shape(section, _DEFAULTS)
    return siglip(section, shape, pools=section.flag("vision_use_head"))


def siglip(section: Section, shape: dict[str, Any], *, pools: bool) -> VisionConfig:
    """Return the tower of a shape."""
    function = section.word("hidden_act")
    c, f, h = shape["hidden_size"], shape["intermediate_size"], shape["num_heads"]
    tokens = (shape["image_size"] // shape["patch_size"]) ** 2
    return VisionConfig(
        family="siglip",
        **shape,
        has_cls=False,
        patch_bias=True,
        pre_norm=False,
        post_norm=True,
        activation=function,
        stack=Stack(
            before=(patches(shape, bias=True), Positions("position", tokens, c, "token")),
            kinds=(encoder_layer(c, f, h, function),),
            pattern=(0,) * shape["num_layers"],
            after=(
                Norm("post_norm", c, "token", "layer"),
                *(_pooling_head(c, f, h, function) if pools else ()),
            ),
        ),
    )


TOWER = Tower("SigLIP", _DEFAULTS, _read)
