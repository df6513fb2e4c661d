"""What Qwen's towers share: patches of two frames, rotary positions, attention image by image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costmodel.blocks import (
    Activate,
    Attend,
    Block,
    Join,
    Norm,
    Project,
    Residual,
    Rotate,
    dense,
)
from costmodel.models.native import DEFAULT_IMAGE
from costmodel.models.towers.transformer import mlp

if TYPE_CHECKING:
    from costmodel.models.reading import Section

#: What a config calls depth and heads.
KEYS = {"num_hidden_layers": "depth", "num_attention_heads": "num_heads"}


def read_shape(
    section: Section, defaults: dict[str, Any], width: str = "hidden_size"
) -> dict[str, Any]:
    """Return the numbers of a tower of native resolution, as `VisionConfig` names them.

    Raises:
        InvalidFileError: a value that is impossible, alone or beside the others.
    """
    section.defaults = defaults
    c, h = section.whole(width), section.whole("num_heads")
    patch = section.whole("patch_size", most=100_000)
    merge = section.whole("spatial_merge_size", most=100)
    if c % h:
        raise section.fail("num_heads", f"({h}) does not divide {width} ({c})")
    unit = patch * merge
    return {
        "hidden_size": c,
        "num_layers": section.whole("depth", most=10_000),
        "num_heads": h,
        "image_size": max(round(DEFAULT_IMAGE[0] / unit), 1) * unit,
        "patch_size": patch,
        "num_channels": section.whole("in_channels", most=10_000),
        "merge": merge,
        "tubelet": section.whole("temporal_patch_size", most=1000),
        "native": True,
        "has_cls": False,
        "pre_norm": False,
        "post_norm": False,
    }


def attention(c: int, h: int, pieces: str) -> tuple[Block, ...]:
    """Return the attention between a layer's norms: q, k and v are one product in the library too."""
    return (
        Project("qkv_proj", c, (("qkv", 3 * c),), "entering", bias=True, reads="attention_input"),
        Rotate(h, h, c // h, rows="entering", in_float32=True),
        Attend(h, h, c // h, causal=False, cached=False, pieces=pieces),
        Join("join_pieces", c, "entering"),
        dense("out_proj", c, c, "out", bias=True, reads="attention_output"),
        Residual("attention_residual", c, "out"),
    )


def native_layer(c: int, f: int, h: int, function: str) -> tuple[Block, ...]:
    """Return one layer: LayerNorms, and an MLP of two matrices."""
    return (
        Norm("norm1", c, "entering", "layer", after_residual=True),
        *attention(c, h, "images"),
        Norm("norm2", c, "mlp", "layer", after_residual=True),
        *mlp(c, f, function),
    )


def merger(
    c: int,
    many: int,
    d: int,
    norm: str,
    name: str = "merger",
    *,
    behind: bool = False,
    rows: str = "projected",
) -> tuple[Block, ...]:
    """Return the blocks of a merger: a norm, then two linear layers over several patches at once.

    Args:
        c: width of a patch.
        many: patches of a token.
        d: width of the tokens.
        norm: kind of the norm.
        name: what the names of its ops start with.
        behind: whether the norm runs over merged rows, not over patches.
        rows: which rows it runs over.

    >>> from costmodel.blocks import parameters
    >>> parameters(merger(1280, 4, 3584, "rms"))  # 1280, 5120 x 5121, 5121 x 3584
    44574464
    """
    k = many * c
    return (
        Norm(f"{name}_norm", k if behind else c, rows, norm, per_row=1 if behind else many),
        dense(f"{name}_fc1", k, k, rows, bias=True),
        Activate(f"{name}_gelu", k, rows, "gelu"),
        dense(f"{name}_fc2", k, d, rows, bias=True),
    )


def indices(section: Section, key: str, layers: int) -> tuple[int, ...]:
    """Return the layers that a list in a config names; those the tower does not have are none.

    Raises:
        InvalidFileError: no list of layers.
    """
    value = section.raw(key)
    if not isinstance(value, (list, tuple)) or not all(
        type(index) is int and index >= 0 for index in value
    ):
        raise section.fail(key, f"must be a list of layers, not {value!r}")
    return tuple(index for index in dict.fromkeys(value) if index < layers)
