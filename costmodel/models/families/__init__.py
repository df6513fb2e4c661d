"""Families of multimodal models by the `model_type` of their config; a family is one file.

`register_family` adds one from outside, as does an entry point of the group `vlm_roofline.families`.
A language model on its own needs no family: its decoder reads it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from costmodel.models.decoders import DECODERS
from costmodel.models.families.original_llava import as_transformers, is_original
from costmodel.models.geometry import CropGeometry
from costmodel.models.model import ModelConfig
from costmodel.models.reading import Section
from costmodel.models.towers import TOWERS
from costmodel.registry import Registry
from hardware_specs.errors import check_kind
from hardware_specs.showing import one_line, shown

if TYPE_CHECKING:
    from costmodel.models.families.family import Family

_FAMILIES: Registry[Family] = Registry(
    "model family",
    {
        "llava": "costmodel.models.families.llava",
        "llava_next": "costmodel.models.families.llava_next",
        "llava_next_video": "costmodel.models.families.llava_next_video",
        "video_llava": "costmodel.models.families.video_llava",
        "llava_onevision": "costmodel.models.families.llava_onevision",
        "qwen2_vl": "costmodel.models.families.qwen2_vl",
        "qwen2_5_vl": "costmodel.models.families.qwen2_5_vl",
        "qwen3_vl": "costmodel.models.families.qwen3_vl",
        "qwen3_vl_moe": "costmodel.models.families.qwen3_vl_moe",
        "internvl": "costmodel.models.families.internvl",
        "gemma3": "costmodel.models.families.gemma3",
        "idefics3": "costmodel.models.families.idefics3",
        "smolvlm": "costmodel.models.families.smolvlm",
    },
    attribute="FAMILY",
    group="vlm_roofline.families",
)

#: A language model on its own must say at least this much.
_REQUIRED_TEXT = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
)


def list_families() -> tuple[str, ...]:
    """Name the families by their `model_type`.

    >>> "llava_next" in list_families()
    True
    """
    return _FAMILIES.names()


def get_family(model_type: str) -> Family:
    """Return the family of a `model_type`.

    Raises:
        UnknownNameError: there is no such family; the message has near matches.

    >>> get_family("llava_onevision").label
    'LLaVA-OneVision'
    """
    return _FAMILIES.get(model_type)


def register_family(family: Family) -> None:
    """Add a family, whose configs `load_model` then reads.

    Raises:
        InvalidInputError: the model type is taken.
    """
    from costmodel.models.families.family import Family

    check_kind("family", family, Family, "a Family")
    _FAMILIES.register(family.model_type, family)


def family_of(model: object) -> Family | None:
    """Return the family of a live `transformers` model by its class or that class's bases, or None."""
    for kind in type(model).__mro__:
        for name in list_families():
            family = get_family(name)
            if kind.__name__ in family.classes:
                return family
    return None


def read_model(document: dict[str, Any], file: str, name: str, source: str) -> ModelConfig:
    """Return the model that a Hugging Face config describes.

    Raises:
        InvalidFileError: a model type the project does not know, a missing key, an impossible value.

    >>> read_model({"model_type": "gpt2"}, "config.json", "gpt2", "here")
    Traceback (most recent call last):
    hardware_specs.errors.InvalidFileError: config.json: model_type is 'gpt2'; what is missing is ...
    """
    outer = Section(document, file)
    if "model_type" not in outer:
        raise outer.fail("model_type", f"is missing; {_known()}")
    if is_original(outer):
        return read_model(as_transformers(outer), file, name, source)
    model_type = outer.word("model_type")
    if model_type not in DECODERS:
        if model_type not in _FAMILIES:
            raise outer.fail("model_type", f"is {model_type!r}; {_missing(outer)}{_known()}")
        return get_family(model_type).read(outer, name, source)
    for key in _REQUIRED_TEXT:
        if key not in outer:
            raise outer.fail(key, "is missing")
    decoder = DECODERS.get(model_type)
    return ModelConfig(
        name, model_type, decoder.label, decoder.read(outer, None), None, None, 0, source,
        CropGeometry(0),
        from_defaults=tuple(outer.used), config_json=json.dumps(outer.values),
    )  # fmt: skip


def _missing(outer: Section) -> str:
    """Say what there would have to be for a config to be read."""
    said: list[str] = []
    if outer.values.get("auto_map"):
        said.append(
            "its model is code in the checkpoint's own repository (auto_map), which this project "
            "neither runs nor reads"
        )
    parts = {key: part for key, part in outer.values.items() if _is_part(key, part)}
    for key, part in list(parts.items())[:_MOST_PARTS]:
        kind, name = part.get("model_type"), one_line(key, 40)
        known = next((each for start, each in _PARTS.items() if key.startswith(start)), None)
        if known is None:
            said.append(f"{name} describes a part that no family here has")
        elif isinstance(kind, str) and kind not in known:
            said.append(f"{name} is {shown(kind)}, of which there are no blocks either")
    if parts:
        said.append(
            "what is missing is a family that says its tokens and its bridge (docs/extending.md)"
        )
    elif not said:
        said.append("what is missing is a decoder with the blocks of its layers")
    return "".join(f"{each}; " for each in said)


#: How configs begin the names of their parts, and what there is of each.
_PARTS: dict[str, Registry[Any]] = {
    "vision": TOWERS,
    "text": DECODERS,
    "llm": DECODERS,
    "language": DECODERS,
}
#: Parts beyond these go unsaid.
_MOST_PARTS = 4


def _is_part(key: str, part: Any) -> bool:
    """Whether a key describes a part of the model: not how it is quantised or answers."""
    about = ("quantization_config", "compression_config", "generation_config")
    return isinstance(part, dict) and key.endswith("_config") and key not in about


def _known() -> str:
    return f"this project knows {', '.join(list_families() + DECODERS.names())}"
