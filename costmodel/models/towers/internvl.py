"""InternVL's tower: a class token, scaled branches; modeling_internvl.py."""

from __future__ import annotations

from typing import Any

from costmodel.blocks import Norm, Positions, Prepend, Stack
from costmodel.models.reading import Section
from costmodel.models.towers import Tower
from costmodel.models.towers.transformer import encoder_layer, patches, read_shape
from costmodel.models.vision import VisionConfig

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
                encoder_layer(
                    c, shape["intermediate_size"], shape["num_heads"], function, norm=norm,
                    bias=section.flag("attention_bias"), qk_norm=section.flag("use_qk_norm"),
                    scaled=True,
                ),
            ),
            pattern=(0,) * shape["num_layers"],
            after=() if pooled else (Norm("post_norm", c, "token", "layer"),),
        ),
    )  # fmt: skip


TOWER = Tower("InternViT", _DEFAULTS, _read)
