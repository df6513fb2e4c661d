"""From the objects of a Hugging Face config to the parts of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costmodel.models.defaults import TEXT, VISION
from costmodel.models.projector import ProjectorConfig
from costmodel.models.text import TextConfig
from costmodel.models.vision import VisionConfig

if TYPE_CHECKING:
    from costmodel.models.reading import Section


def read_text(section: Section, family: str, *, tied: bool | None = None) -> TextConfig:
    """Return the language model that a config object describes.

    Args:
        section: the object.
        family: `llama`, `mistral` or `qwen2`.
        tied: whether head and embedding share their weights; None leaves it to the object.

    Raises:
        InvalidFileError: a value that is impossible, alone or beside the others.
    """
    section.defaults = TEXT[family]
    d = section.whole("hidden_size")
    h = section.whole("num_attention_heads")
    k = section.whole("num_key_value_heads", null=True) or h
    e = section.whole("head_dim", null=True)
    if h % k:
        raise section.fail(
            "num_key_value_heads", f"({k}) does not divide num_attention_heads ({h})"
        )
    if d % h and (e is None or family == "llama"):
        raise section.fail("num_attention_heads", f"({h}) does not divide hidden_size ({d})")
    bias = section.flag("attention_bias") if family == "llama" else False
    return TextConfig(
        family=family,
        hidden_size=d,
        intermediate_size=section.whole("intermediate_size"),
        num_layers=section.whole("num_hidden_layers", most=10_000),
        num_heads=h,
        num_kv_heads=k,
        head_dim=e or d // h,
        vocab_size=section.whole("vocab_size"),
        qkv_bias=bias or family == "qwen2",
        output_bias=bias,
        mlp_bias=section.flag("mlp_bias") if family == "llama" else False,
        tie_embeddings=section.flag("tie_word_embeddings") if tied is None else tied,
        max_positions=_positions(section),
        activation=section.word("hidden_act"),
        norm_eps=section.number("rms_norm_eps"),
        sliding_window=_window(section, family),
    )


def _positions(section: Section) -> int:
    """Positions the model was made for: linear and dynamic rotary scaling stretch them."""
    positions: int = section.whole("max_position_embeddings", most=1_000_000_000)
    for key in ("rope_parameters", "rope_scaling"):
        scaling = section.values.get(key)
        if isinstance(scaling, dict):
            kind = scaling.get("rope_type", scaling.get("type"))
            if kind in ("linear", "dynamic"):
                factor: Any = scaling.get("factor")
                if type(factor) not in (int, float) or not 1 <= factor <= 1000:
                    raise section.fail(f"{key}.factor", f"must be from 1 to 1000, not {factor!r}")
                return int(positions * factor)
    return positions


def _window(section: Section, family: str) -> int | None:
    """Keys a layer attends to at most: Llama has no window, Qwen2 only when it says so."""
    if family == "llama" or (family == "qwen2" and not section.flag("use_sliding_window")):
        return None
    window: int | None = section.whole("sliding_window", null=True)
    return window


def read_vision(section: Section, outer: Section, model_type: str, copies: int) -> VisionConfig:
    """Return the vision tower that a config object describes.

    Args:
        section: the object.
        outer: the config around it, which says which features are read.
        model_type: the tower's, `clip_vision_model` or `siglip_vision_model`.
        copies: towers of this shape in the model.

    Raises:
        InvalidFileError: a value that is impossible, alone or beside the others.
    """
    section.defaults = VISION[model_type]
    clip = model_type == "clip_vision_model"
    c, h = section.whole("hidden_size"), section.whole("num_attention_heads")
    layers = section.whole("num_hidden_layers", most=10_000)
    side = section.whole("image_size", most=100_000)
    patch = section.whole("patch_size", most=100_000)
    if c % h:
        raise section.fail("num_attention_heads", f"({h}) does not divide hidden_size ({c})")
    if patch > side:
        raise section.fail("patch_size", f"({patch}) is larger than image_size ({side})")
    return VisionConfig(
        family="clip" if clip else "siglip",
        hidden_size=c,
        intermediate_size=section.whole("intermediate_size"),
        num_layers=layers,
        num_heads=h,
        image_size=side,
        patch_size=patch,
        num_channels=section.whole("num_channels", most=10_000),
        has_cls=clip,
        patch_bias=not clip,
        pre_norm=clip,
        post_norm=True,
        pooling_head=not clip and section.flag("vision_use_head"),
        activation=section.word("hidden_act"),
        copies=copies,
        feature_layers=_feature_layers(outer, layers),
        feature_select=outer.word("vision_feature_select_strategy", ("default", "full")),
    )


def _feature_layers(outer: Section, layers: int) -> tuple[int, ...]:
    """The hidden states that are read: one index, or a list of them."""
    key = "vision_feature_layer"
    value = outer.raw(key)
    indices = value if isinstance(value, list) else [value]
    whole = all(type(index) is int for index in indices)
    if not indices or not whole or not all(-layers - 1 <= index <= layers for index in indices):
        raise outer.fail(
            key,
            f"must be a layer from {-layers - 1} to {layers} of the vision tower's {layers}, or a "
            f"list of them, not {value!r}",
        )
    return tuple(indices)


def read_projector(outer: Section, vision: VisionConfig, text: TextConfig) -> ProjectorConfig:
    """Return the projector that stands between a vision tower and a language model.

    Args:
        outer: the config around both.
        vision: the vision tower.
        text: the language model.

    Raises:
        InvalidFileError: a value that is none.
    """
    return ProjectorConfig(
        in_features=vision.hidden_size * len(vision.feature_layers),
        hidden_features=text.hidden_size,
        out_features=text.hidden_size,
        bias=outer.flag("multimodal_projector_bias"),
        activation=outer.word("projector_hidden_act"),
    )
