"""What decoders of the Llama kind share: RMSNorm, rotary attention, a gated MLP, and how configs say it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from costmodel.blocks import (
    Activate,
    Angles,
    Attend,
    Block,
    Embed,
    Mask,
    Norm,
    Project,
    Residual,
    Rotate,
    Stack,
    dense,
)
from costmodel.models.decoders.windows import read_positions, read_windows
from costmodel.models.text import TextConfig

if TYPE_CHECKING:
    from costmodel.models.reading import Section

#: What `transformers`' config classes assume where a config is silent; values of 5.17 to 5.23.
DEFAULTS: dict[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}


def read_gated(
    section: Section,
    family: str,
    defaults: dict[str, Any],
    tied: bool | None,
    *,
    qkv_bias: bool = False,
    says_biases: bool = False,
    whole_heads: bool = False,
    switched_window: bool = False,
) -> TextConfig:
    """Return the language model that a config object describes.

    Args:
        section: the object.
        family: its model type.
        defaults: what stands in for missing keys.
        tied: whether head and embedding share their weights; None leaves it to the object.
        qkv_bias: whether q, k and v always have a bias.
        says_biases: whether the object says which products have one.
        whole_heads: whether the heads must divide the width even where `head_dim` is given.
        switched_window: whether the object says if and from which layer on a window slides.

    Raises:
        InvalidFileError: a value that is impossible, alone or beside the others.
    """
    section.defaults = defaults
    d = section.whole("hidden_size")
    h = section.whole("num_attention_heads")
    k = section.whole("num_key_value_heads", null=True) or h
    e = section.whole("head_dim", null=True)
    if h % k:
        raise section.fail(
            "num_key_value_heads", f"({k}) does not divide num_attention_heads ({h})"
        )
    if d % h and (e is None or whole_heads):
        raise section.fail("num_attention_heads", f"({h}) does not divide hidden_size ({d})")
    bias = says_biases and section.flag("attention_bias")
    text = TextConfig(
        family=family,
        hidden_size=d,
        intermediate_size=section.whole("intermediate_size"),
        num_layers=section.whole("num_hidden_layers", most=10_000),
        num_heads=h,
        num_kv_heads=k,
        head_dim=e or d // h,
        vocab_size=section.whole("vocab_size"),
        qkv_bias=bias or qkv_bias,
        output_bias=bias,
        mlp_bias=says_biases and section.flag("mlp_bias"),
        tie_embeddings=section.flag("tie_word_embeddings") if tied is None else tied,
        max_positions=read_positions(section),
        activation=section.word("hidden_act"),
        norm_eps=section.number("rms_norm_eps"),
    )
    return with_blocks(text, read_windows(section, text.num_layers, switched=switched_window))


def gated_layer(text: TextConfig, window: int = 0) -> tuple[Block, ...]:
    """Return one layer: attention behind a norm, a gated MLP behind another, each added to the stream.

    Args:
        text: its numbers.
        window: keys that a query sees at most; 0 for all.

    >>> from costmodel.blocks import parameters
    >>> from costmodel.models import load_model
    >>> parameters(gated_layer(load_model("llama-2-7b").text))  # 4 d^2 + 3 d f + 2 d
    202383360
    """
    d, f = text.hidden_size, text.intermediate_size
    h, k, e = text.num_heads, text.num_kv_heads, text.head_dim
    return (
        Norm("input_norm", d, "entering", "rms", after_residual=True),
        Project(
            "qkv_proj", d, (("q_proj", h * e), ("k_proj", k * e), ("v_proj", k * e)), "entering",
            text.qkv_bias, reads="attention_input",
        ),
        Rotate(h, k, e),
        Attend(h, k, e, causal=True, cached=True, window=window),
        dense("o_proj", h * e, d, "out", bias=text.output_bias, reads="attention_output"),
        Residual("attention_residual", d, "out"),
        Norm("post_attention_norm", d, "mlp", "rms", after_residual=True),
        Project(
            "gate_up_proj", d, (("gate_proj", f), ("up_proj", f)), "mlp", text.mlp_bias,
            reads="mlp_input",
        ),
        Activate("act_mul", f, "mlp", text.activation, gated=True),
        dense("down_proj", f, d, "mlp", bias=text.mlp_bias, reads="mlp_hidden"),
        Residual("mlp_residual", d, "mlp"),
    )  # fmt: skip


def with_blocks(text: TextConfig, windows: tuple[int, ...]) -> TextConfig:
    """Return a language model whose layers differ in their windows alone, with what stands around them.

    Args:
        text: its numbers.
        windows: of every layer, 0 for none.
    """
    d, v = text.hidden_size, text.vocab_size
    kinds = tuple(dict.fromkeys(windows))
    return replace(
        text,
        sliding_window=max(kinds) or None,
        embedding=Embed("embed_tokens", v, d, "text", module="lm_head"),
        stack=Stack(
            before=(Angles(text.head_dim), *(Mask(window) for window in kinds)),
            kinds=tuple(gated_layer(text, window) for window in kinds),
            pattern=tuple(kinds.index(window) for window in windows),
            after=(Norm("final_norm", d, "all", "rms", after_residual=True, feeds="lm_head"),),
            labels=tuple("[sliding]" if window else "" for window in kinds),
        ),
        head=Project(
            "lm_head", d, (("lm_head", v),), "logits", module="lm_head",
            shared=text.tie_embeddings,
        ),
    )  # fmt: skip
