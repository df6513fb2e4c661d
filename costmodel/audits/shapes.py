"""The models that tables name, and the numbers of theirs that a count needs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from costmodel.conventions.decoder import text_shape
from costmodel.conventions.llava_mini import encoder_flops
from costmodel.models import list_models
from costmodel.reproduce.counted_models import counted_model

#: A model, and the names under which papers count it or its language model behind a tower of their own.
_NAMES = {
    "llava-1.5-7b": "llava-7b",
    "llava-1.5-13b": "llava-13b",
    "llava-next-vicuna-7b": "llava-next-7b llava-1.6-7b",
    "llava-next-vicuna-13b": "llava-next-13b llava-1.6-13b",
    "llava-next-mistral-7b": "videollama2-7b",
    "llava-onevision-7b": "llava-ov-7b llava-onevision-qwen2-7b",
    "llama-2-7b": "vicuna-7b llama-2-chat-7b cogact-7b openvla-7b chat-univi-7b llama-vid-7b "
    "llava-mini-7b mini-gemini-7b prismatic-7b sharegpt4v-7b tokenpacker-7b video-chatgpt-7b vila-7b "
    "voco-llama-7b",
    "llama-2-13b": "vicuna-13b",
    "llama-3-8b": "llava-llama3-8b",
    "qwen-7b": "qwen-vl-7b qwen-vl-chat qwen-vl-chat-7b",
    "qwen2-7b": "llava-video-7b longva-7b minicpm-v-2.6",
    "qwen2-0.5b": "llava-onevision-0.5b llava-ov-0.5b",
    "internlm2.5-7b": "internvl2-8b internvl2.5-8b",
}
_SAME = {name: model for model, names in _NAMES.items() for name in (model, *names.split())}


def plain_model(name: str) -> str:
    """Return the model that a table's name for it means; other names pass, to be refused later.

    >>> plain_model("LLaVA-NeXT-7B"), plain_model("LLaVA-v1.5 7B")
    ('llava-next-vicuna-7b', 'llava-1.5-7b')
    """
    text = re.sub(r"[\s_]+", "-", name.strip().lower().split("(")[0].strip())
    text = re.sub(r"-v(?=\d)", "-", text).removesuffix("-instruct").removesuffix("-hf")
    known = _SAME | dict.fromkeys(list_models(), "")
    # A name without a size is mostly the 7B model's.
    found = next((each for each in (text, f"{text}-7b") if each in known), text)
    return known.get(found) or found


def is_model(name: str) -> bool:
    """Return whether a table's words for a model are of one that is known."""
    return plain_model(name) in {*list_models(), *_NAMES}


def full_tokens(model: str) -> float:
    """Return the visual tokens of a model's usual image, 0 for a language model alone."""
    return float(getattr(counted_model(model), "default_visual_tokens", 0) or 0)


@dataclass(frozen=True, slots=True)
class Shape:
    """What a count needs of a model: widths, layers, and MACs outside the language model.

    Attributes:
        d: hidden width.
        q: width of the queries, h e.
        kv: width of the keys, k e.
        f: FFN width.
        layers: of the language model.
        vocab: vocabulary.
        tower_linear: MACs of one image through the vision tower, attention left out.
        tower_attention: MACs of the tower's attention.
        projector: MACs of one image through the projector.
    """

    d: int
    q: int
    kv: int
    f: int
    layers: int
    vocab: int
    tower_linear: float
    tower_attention: float
    projector: float


@cache
def shape_of(name: str) -> Shape:
    """Return the shape of a model.

    Raises:
        UnknownModelError: no such model; names near ones.

    >>> shape_of("llava-1.5-7b").tower_linear * 2 / 1e12  # LLaVA-Mini prints 0.349
    0.3491...
    """
    model = counted_model(name)
    text = text_shape(model)
    e = getattr(text, "head_dim", None) or text.hidden_size // text.num_heads
    linear = attention = projector = 0.0
    counted = encoder_flops(model, 1)
    if counted is not None:
        vision, image = model.vision, model.visual_input()
        linear, projector = (float(part) / 2 / image.crops for part in counted)
        attention = float(vision.num_layers * 2 * vision.tokens**2 * vision.hidden_size)
    return Shape(
        text.hidden_size, e * text.num_heads, e * text.num_kv_heads, text.intermediate_size,
        text.num_layers, text.vocab_size, linear, attention, projector,
    )  # fmt: skip
