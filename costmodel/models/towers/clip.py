"""CLIP's tower: a class token before the patches, a norm before the layers; configuration_clip.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.blocks import Norm, Positions, Prepend, Stack
from costmodel.models.towers import Tower
from costmodel.models.towers.transformer import DEFAULTS, encoder_layer, patches, read_shape
from costmodel.models.vision import VisionConfig

if TYPE_CHECKING:
    from costmodel.models.reading import Section

_DEFAULTS = DEFAULTS | {"patch_size": 32, "hidden_act": "quick_gelu"}


def _read(section: Section) -> VisionConfig:
    shape = read_shape(section, _DEFAULTS)
    function = section.word("hidden_act")
    c, f, h = shape["hidden_size"], shape["intermediate_size"], shape["num_heads"]
    tokens = (shape["image_size"] // shape["patch_size"]) ** 2 + 1
    return VisionConfig(
        family="clip",
        **shape,
        has_cls=True,
        patch_bias=False,
        pre_norm=True,
        post_norm=True,
        activation=function,
        stack=Stack(
            before=(
                patches(shape, bias=False),
                Prepend("class_token", c, "token"),
                Positions("position", tokens, c, "token"),
                Norm("pre_norm", c, "token", "layer"),
            ),
            kinds=(encoder_layer(c, f, h, function),),
            pattern=(0,) * shape["num_layers"],
            # Of what the last layer gives, the class token alone is normed.
            after=(Norm("post_norm", c, "image", "layer"),),
        ),
    )


TOWER = Tower("CLIP", _DEFAULTS, _read)
