"""Language models by the `model_type` of their config: a reader each, and their layers as blocks.

A multimodal config names its language model in `text_config`, whatever the family; a language model on
its own names it at the top.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from costmodel.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from costmodel.models.reading import Section
    from costmodel.models.text import TextConfig


class Decoder(NamedTuple):
    """One kind of language model.

    Attributes:
        label: what people call it.
        defaults: what its config class assumes where a config is silent.
        read: from its config object, and whether head and embedding share their weights (None
            leaves it to the object), to the language model.
    """

    label: str
    defaults: Mapping[str, Any]
    read: Callable[[Section, bool | None], TextConfig]


DECODERS: Registry[Decoder] = Registry(
    "language model",
    {
        "llama": "costmodel.models.decoders.llama",
        "mistral": "costmodel.models.decoders.mistral",
        "qwen2": "costmodel.models.decoders.qwen2",
        "gemma": "costmodel.models.decoders.gemma",
        "gemma3_text": "costmodel.models.decoders.gemma3",
        "phi3": "costmodel.models.decoders.phi3",
        "qwen3": "costmodel.models.decoders.qwen3",
        "qwen3_moe": "costmodel.models.decoders.qwen3_moe",
        "mixtral": "costmodel.models.decoders.mixtral",
        "qwen3_vl_text": "costmodel.models.decoders.qwen3_vl",
        "qwen3_vl_moe_text": "costmodel.models.decoders.qwen3_vl_moe",
        "qwen2_vl_text": "costmodel.models.decoders.qwen2_vl",
        "qwen2_5_vl_text": "costmodel.models.decoders.qwen2_vl",
    },
    attribute="DECODER",
)
