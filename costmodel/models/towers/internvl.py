"""InternVL's tower: a class token, scaled branches; modeling_internvl.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costmodel.blocks import (
    Activate,
    Attend,
    Block,
    Norm,
    Positions,
    Prepend,
    Project,
    Residual,
    Scale,
    Stack,
    dense,
)
from costmodel.models.reading import Section
from costmodel.models.towers import Tower
from costmodel.models.towers.transformer import patches, read_shape
from costmodel.models.vision import VisionConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEFAULTS: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_channels": 3,
    "image_size": [448, 448],
    "patch_size": [14, 14],
    "hidden_act": "gelu",
    "attention_bias": False,
    "use_qk_norm": False,
    "norm_type": "layer_norm",
    "use_absolute_position_embeddings": True,
    "use_mask_token": False,
    "use_mean_pooling": True,
}


def _layer(
    shape: Mapping[str, Any], function: str, norm: str, *, bias: bool, qk_norm: bool
) -> tuple[Block, ...]:
    c, f, h = shape["hidden_size"], shape["intermediate_size"], shape["num_heads"]
    normed = tuple(Norm(name, c, "entering", "rms") for name in ("q_norm", "k_norm") if qk_norm)
    return (
        Norm("norm1", c, "entering", norm, after_residual=True),
        Project(
            "qkv_proj", c, (("q_proj", c), ("k_proj", c), ("v_proj", c)), "entering", bias=bias,
            reads="attention_input",
        ),
        *normed,
        Attend(h, h, c // h, causal=False, cached=False),
        dense("out_proj", c, c, "out", bias=True, reads="attention_output"),
        Scale("attention_scale", c, "out"),
        Residual("attention_residual", c, "out"),
        Norm("norm2", c, "mlp", norm, after_residual=True),
        dense("fc1", c, f, "mlp", bias=True, reads="mlp_input"),
        Activate("gelu", f, "mlp", function),
        dense("fc2", f, c, "mlp", bias=True, reads="mlp_hidden"),
        Scale("mlp_scale", c, "mlp"),
        Residual("mlp_residual", c, "mlp"),
    )  # fmt: skip


def _squared(section: Section) -> Section:
    """Sizes may be pairs, of equal sides: the tower of every checkpoint is square."""
    values = {**section.defaults, **section.values}
    for key in ("image_size", "patch_size"):
        side = values[key]
        if isinstance(side, (list, tuple)):
            if not side or any(each != side[0] for each in side):
                raise section.fail(key, f"must be square, not {side!r}")
            values[key] = side[0]
    return Section(values, section.file, section.path, section.defaults, section.used)


def _read(section: Section) -> VisionConfig:
    section.defaults = _DEFAULTS
    for key in _DEFAULTS:  # notes which of them stand in for missing keys
        section.raw(key)
    section = _squared(section)
    shape = read_shape(section, _DEFAULTS)
    c, function = shape["hidden_size"], section.word("hidden_act")
    norm = section.word("norm_type", ("layer_norm", "rms_norm")).removesuffix("_norm")
    tokens = (shape["image_size"] // shape["patch_size"]) ** 2 + 1
    if section.flag("use_mask_token"):
        raise section.fail("use_mask_token", "is true; masked training is not modelled")
    placed = section.flag("use_absolute_position_embeddings")
    pooled = section.flag("use_mean_pooling")
    return VisionConfig(
        family="internvl",
        **shape,
        has_cls=True,
        patch_bias=True,
        pre_norm=False,
        post_norm=not pooled,
        activation=function,
        stack=Stack(
            before=(
                patches(shape, bias=True),
                Prepend("class_token", c, "token"),
                *((Positions("position", tokens, c, "token", looked_up=False),) if placed else ()),
            ),
            kinds=(
                _layer(
                    shape, function, norm, bias=section.flag("attention_bias"),
                    qk_norm=section.flag("use_qk_norm"),
                ),
            ),
            pattern=(0,) * shape["num_layers"],
            after=() if pooled else (Norm("post_norm", c, "token", "layer"),),
        ),
    )  # fmt: skip


TOWER = Tower("InternViT", _DEFAULTS, _read)
