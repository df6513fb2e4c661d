"""What towers share: the layer of a vision transformer, and how configs say its shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costmodel.blocks import (
    Activate,
    Attend,
    Block,
    Convolve,
    Norm,
    Project,
    Residual,
    Scale,
    dense,
)

if TYPE_CHECKING:
    from costmodel.models.reading import Section

#: What `transformers`' config classes assume where a config is silent; values of 5.17 to 5.23.
DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
}


def read_shape(section: Section, defaults: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of a vision transformer, as `VisionConfig` names them.

    Raises:
        InvalidFileError: a value that is impossible, alone or beside the others.
    """
    section.defaults = defaults
    c, h = section.whole("hidden_size"), section.whole("num_attention_heads")
    layers = section.whole("num_hidden_layers", most=10_000)
    side = section.whole("image_size", most=100_000)
    patch = section.whole("patch_size", most=100_000)
    if c % h:
        raise section.fail("num_attention_heads", f"({h}) does not divide hidden_size ({c})")
    if patch > side:
        raise section.fail("patch_size", f"({patch}) is larger than image_size ({side})")
    return {
        "hidden_size": c,
        "intermediate_size": section.whole("intermediate_size"),
        "num_layers": layers,
        "num_heads": h,
        "image_size": side,
        "patch_size": patch,
        "num_channels": section.whole("num_channels", most=10_000),
    }


def patches(shape: dict[str, Any], *, bias: bool) -> Convolve:
    """Return the patch embedding, a convolution over rows, columns and the frames of a tubelet."""
    window = shape["num_channels"] * shape.get("tubelet", 1) * shape["patch_size"] ** 2
    return Convolve("patch_embed", window, shape["hidden_size"], "patch", bias)


def mlp(c: int, f: int, function: str, *, scaled: bool = False) -> tuple[Block, ...]:
    """Return an MLP of two matrices with biases, and its sum with the stream."""
    return (
        dense("fc1", c, f, "mlp", bias=True, reads="mlp_input"),
        Activate("gelu", f, "mlp", function),
        dense("fc2", f, c, "mlp", bias=True, reads="mlp_hidden"),
        *((Scale("mlp_scale", c, "mlp"),) if scaled else ()),
        Residual("mlp_residual", c, "mlp"),
    )


def encoder_layer(
    c: int,
    f: int,
    h: int,
    function: str,
    *,
    norm: str = "layer",
    bias: bool = True,
    qk_norm: bool = False,
    scaled: bool = False,
) -> tuple[Block, ...]:
    """Return one layer: attention and an MLP of two matrices, each behind a norm and added to the stream.

    Args:
        c: width.
        f: FFN width.
        h: attention heads.
        function: the MLP's activation.
        norm: kind of the two norms.
        bias: whether q, k and v have a bias; the other projections do.
        qk_norm: whether q and k are normed, all heads together.
        scaled: whether what each branch adds is scaled by learned factors.

    >>> from costmodel.blocks import parameters
    >>> parameters(encoder_layer(1024, 4096, 16, "quick_gelu"))  # 4 (c^2 + c) + 2 c f + f + c + 4 c
    12596224
    """
    return (
        Norm("norm1", c, "entering", norm, after_residual=True),
        Project(
            "qkv_proj", c, (("q_proj", c), ("k_proj", c), ("v_proj", c)), "entering", bias=bias,
            reads="attention_input",
        ),
        *(Norm(name, c, "entering", "rms") for name in ("q_norm", "k_norm") if qk_norm),
        Attend(h, h, c // h, causal=False, cached=False),
        dense("out_proj", c, c, "out", bias=True, reads="attention_output"),
        *((Scale("attention_scale", c, "out"),) if scaled else ()),
        Residual("attention_residual", c, "out"),
        Norm("norm2", c, "mlp", norm, after_residual=True),
        *mlp(c, f, function, scaled=scaled),
    )  # fmt: skip
