"""What CLIP and SigLIP share: the layer of a vision transformer, and how configs say its shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costmodel.blocks import Activate, Attend, Block, Convolve, Norm, Project, Residual, dense

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
    """Return the patch embedding."""
    window = shape["num_channels"] * shape["patch_size"] ** 2
    return Convolve("patch_embed", window, shape["hidden_size"], "patch", bias)


def encoder_layer(c: int, f: int, h: int, function: str) -> tuple[Block, ...]:
    """Return one layer: every projection has a bias, the MLP two matrices.

    >>> from costmodel.blocks import parameters
    >>> parameters(encoder_layer(1024, 4096, 16, "quick_gelu"))  # 4 (c^2 + c) + 2 c f + f + c + 4 c
    12596224
    """
    return (
        Norm("norm1", c, "entering", "layer", after_residual=True),
        Project(
            "qkv_proj", c, (("q_proj", c), ("k_proj", c), ("v_proj", c)), "entering", bias=True,
            reads="attention_input",
        ),
        Attend(h, h, c // h, causal=False, cached=False),
        dense("out_proj", c, c, "out", bias=True, reads="attention_output"),
        Residual("attention_residual", c, "out"),
        Norm("norm2", c, "mlp", "layer", after_residual=True),
        dense("fc1", c, f, "mlp", bias=True, reads="mlp_input"),
        Activate("gelu", f, "mlp", function),
        dense("fc2", f, c, "mlp", bias=True, reads="mlp_hidden"),
        Residual("mlp_residual", c, "mlp"),
    )  # fmt: skip
