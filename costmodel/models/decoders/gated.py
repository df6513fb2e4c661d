"""What decoders of the Llama kind share: RMSNorm, rotary attention, a gated MLP, and how configs say it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from costmodel.blocks import (
    Activate,
    Angles,
    Attend,
    Block,
    Combine,
    Embed,
    Inject,
    Mask,
    Norm,
    Project,
    Residual,
    Rotate,
    Route,
    Stack,
    dense,
)
from costmodel.models.decoders import Decoder
from costmodel.models.decoders.windows import read_positions, read_windows
from costmodel.models.text import TextConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
    activation: str = "hidden_act",
    **shape: Any,
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
        activation: what the object calls the MLP's activation.
        shape: further facts of `TextConfig`, such as `qk_norm`.

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
        mlp_bias=says_biases and "mlp_bias" in defaults and section.flag("mlp_bias"),
        tie_embeddings=section.flag("tie_word_embeddings") if tied is None else tied,
        max_positions=read_positions(section),
        activation=section.word(activation),
        norm_eps=section.number("rms_norm_eps"),
        **shape,
    )
    windows = read_windows(section, text.num_layers, switched=switched_window)
    return with_blocks(text, tuple(map(Kind, windows)))


def gated(family: str, label: str, defaults: Mapping[str, Any], **facts: Any) -> Decoder:
    """Return a decoder of this kind: its defaults beside `DEFAULTS`, and what else `read_gated` takes."""
    known = {**DEFAULTS, **defaults}
    return Decoder(
        label, known, lambda section, tied: read_gated(section, family, known, tied, **facts)
    )


class Kind(NamedTuple):
    """What layers of one model may differ in.

    Attributes:
        window: keys that a query sees at most; 0 for all.
        sparse: whether its MLP is one of experts.
        injected: whether features of the tower are added behind it.
    """

    window: int = 0
    sparse: bool = False
    injected: bool = False

    @property
    def label(self) -> str:
        """What stands behind the names of its ops where there are other kinds."""
        said = {"sliding": self.window, "experts": self.sparse, "deepstack": self.injected}
        words = ",".join(word for word, so in said.items() if so)
        return f"[{words}]" if words else ""


def gated_layer(text: TextConfig, kind: Kind = Kind()) -> tuple[Block, ...]:  # noqa: B008 - frozen
    """Return one layer: attention behind a norm, a gated MLP behind another, each added to the stream.

    >>> from costmodel.blocks import parameters
    >>> from costmodel.models import load_model
    >>> parameters(gated_layer(load_model("llama-2-7b").text))  # 4 d^2 + 3 d f + 2 d
    202383360
    """
    d, f = text.hidden_size, text.intermediate_size
    h, k, e = text.num_heads, text.num_kv_heads, text.head_dim
    norm = partial(Norm, kind="rms", offset=text.offset_norms)
    normed = ("q_norm", h), ("k_norm", k)
    qkv: tuple[tuple[str, int], ...] = (("q_proj", h * e), ("k_proj", k * e), ("v_proj", k * e))
    gate_up: tuple[tuple[str, int], ...] = (("gate_proj", f), ("up_proj", f))
    if text.one_qkv:
        qkv, gate_up = (("qkv_proj", (h + 2 * k) * e),), (("gate_up_proj", 2 * f),)
    mlp: tuple[Block, ...] = (
        Project("gate_up_proj", d, gate_up, "mlp", text.mlp_bias, reads="mlp_input"),
        Activate("act_mul", f, "mlp", text.activation, gated=True),
        dense("down_proj", f, d, "mlp", bias=text.mlp_bias, reads="mlp_hidden"),
    )
    return (
        norm("input_norm", d, "entering", after_residual=True),
        Project("qkv_proj", d, qkv, "entering", text.qkv_bias, reads="attention_input"),
        *(norm(name, e, "entering", per_row=n) for name, n in normed if text.qk_norm),
        Rotate(h, k, e),
        Attend(
            h, k, e, causal=True, cached=True, window=kind.window, both_ways=text.both_ways
        ),
        dense("o_proj", h * e, d, "out", bias=text.output_bias, reads="attention_output"),
        *((norm("after_attention_norm", d, "out"),) if text.sandwich else ()),
        Residual("attention_residual", d, "out"),
        norm("post_attention_norm", d, "mlp", after_residual=True),
        *(experts(text) if kind.sparse else mlp),
        *((norm("after_mlp_norm", d, "mlp"),) if text.sandwich else ()),
        Residual("mlp_residual", d, "mlp"),
        *((Inject("deepstack", d),) if kind.injected else ()),
    )  # fmt: skip


def experts(text: TextConfig) -> tuple[Block, ...]:
    """Return an MLP of experts: a router, and gated MLPs of which each row takes a few."""
    d, f, n, k = text.hidden_size, text.expert_size, text.experts, text.chosen_experts
    return (
        dense("router", d, n, "mlp"),
        Route("route", n, k, d, "mlp"),
        Project(
            "gate_up_proj", d, (("gate_proj", f), ("up_proj", f)), "mlp", reads="mlp_input",
            experts=n, chosen=k,
        ),
        Activate("act_mul", f, "mlp", text.activation, gated=True, per_row=k),
        Project(
            "down_proj", f, (("down_proj", d),), "mlp", reads="mlp_hidden", experts=n, chosen=k
        ),
        Combine("combine", k, d, "mlp"),
    )  # fmt: skip


def with_deepstack(text: TextConfig, features: int) -> TextConfig:
    """Return a language model whose first layers are followed by features of the tower."""
    layers = [kind._replace(injected=index < features) for index, kind in enumerate(kinds_of(text))]
    return with_blocks(replace(text, deepstack=features), layers)


def kinds_of(text: TextConfig) -> list[Kind]:
    """Return the kind of every layer of a language model."""
    sparse = [any(isinstance(b, Route) for b in kind) for kind in text.stack.kinds]
    return [
        Kind(window, sparse[kind])
        for window, kind in zip(text.windows, text.stack.pattern, strict=True)
    ]


def with_blocks(text: TextConfig, layers: Sequence[Kind]) -> TextConfig:
    """Return a language model with layers of these kinds, and what stands around them."""
    d, v = text.hidden_size, text.vocab_size
    kinds = tuple(dict.fromkeys(layers))
    windows = tuple(dict.fromkeys(kind.window for kind in kinds))
    return replace(
        text,
        sliding_window=max(windows) or None,
        embedding=Embed(
            "embed_tokens", v, d, "text", module="lm_head", scaled=text.offset_norms
        ),
        stack=Stack(
            before=(
                Angles(text.head_dim), *(Mask(window, text.both_ways > 0) for window in windows)
            ),
            kinds=tuple(gated_layer(text, kind) for kind in kinds),
            pattern=tuple(kinds.index(kind) for kind in layers),
            after=(
                Norm(
                    "final_norm", d, "all", "rms", after_residual=True, feeds="lm_head",
                    offset=text.offset_norms,
                ),
            ),
            labels=tuple(kind.label for kind in kinds),
        ),
        head=Project(
            "lm_head", d, (("lm_head", v),), "logits", module="lm_head",
            shared=text.tie_embeddings,
        ),
    )  # fmt: skip
