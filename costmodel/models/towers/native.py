"""What Qwen's towers share: patches of two frames, rotary positions, attention image by image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costmodel.blocks import Attend, Block, Convolve, Join, Project, Residual, Rotate, dense
from costmodel.models.native import DEFAULT_IMAGE

if TYPE_CHECKING:
    from costmodel.models.reading import Section

#: What a config calls depth and heads.
KEYS = {"num_hidden_layers": "depth", "num_attention_heads": "num_heads"}


def read_shape(
    section: Section, defaults: dict[str, Any], width: str = "hidden_size"
) -> dict[str, Any]:
    """Return the numbers of a tower of native resolution, as `VisionConfig` names them.

    Args:
        section: the config object.
        defaults: what stands in for missing keys.
        width: what the config calls the tower's width.

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
    }


def patches(shape: dict[str, Any], *, bias: bool) -> Convolve:
    """Return the patch embedding, a convolution over frames, rows and columns."""
    window = shape["num_channels"] * shape["tubelet"] * shape["patch_size"] ** 2
    return Convolve("patch_embed", window, shape["hidden_size"], "patch", bias)


def attention(c: int, h: int, pieces: str) -> tuple[Block, ...]:
    """Return the attention between a layer's norms: q, k and v are one product in the library too.

    Args:
        c: width.
        h: heads.
        pieces: what attends to itself: `images` or `windows`.
    """
    return (
        Project("qkv_proj", c, (("qkv", 3 * c),), "entering", bias=True, reads="attention_input"),
        Rotate(h, h, c // h, rows="entering", in_float32=True),
        Attend(h, h, c // h, causal=False, cached=False, pieces=pieces),
        Join("join_pieces", c, "entering"),
        dense("out_proj", c, c, "out", bias=True, reads="attention_output"),
        Residual("attention_residual", c, "out"),
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
