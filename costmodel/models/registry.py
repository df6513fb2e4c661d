"""Finding a model: a shipped name, a file or folder, a hub id, a size-reduced variant of any of them."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from costmodel.models.beside import QUANTISED, precision_beside
from costmodel.models.families import get_family, read_model
from costmodel.models.model import ModelConfig
from costmodel.models.processors import with_processor
from costmodel.models.reading import read_document
from costmodel.models.scale import parse_scale, scaled_document, split_scale
from hardware_specs.errors import InvalidFileError, InvalidInputError, UnknownModelError
from hardware_specs.files.reading import look, user_path
from hardware_specs.showing import one_line

_FOLDER = Path(__file__).parent / "configs"

#: The hub repositories the shipped configs come from, and other names people use.
ALIASES = {
    "llava-hf/llava-1.5-7b-hf": "llava-1.5-7b",
    "llava-hf/llava-1.5-13b-hf": "llava-1.5-13b",
    "llava-hf/llava-v1.6-vicuna-7b-hf": "llava-next-vicuna-7b",
    "llava-hf/llava-v1.6-vicuna-13b-hf": "llava-next-vicuna-13b",
    "llava-hf/llava-v1.6-mistral-7b-hf": "llava-next-mistral-7b",
    "llava-hf/LLaVA-NeXT-Video-7B-hf": "llava-next-video-7b",
    "LanguageBind/Video-LLaVA-7B-hf": "video-llava-7b",
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": "llava-onevision-7b",
    "meta-llama/Llama-2-7b-hf": "llama-2-7b",
    "meta-llama/Llama-2-13b-hf": "llama-2-13b",
    "Qwen/Qwen2.5-VL-3B-Instruct": "qwen2.5-vl-3b",
    "Qwen/Qwen2.5-VL-7B-Instruct": "qwen2.5-vl-7b",
    "Qwen/Qwen2.5-VL-32B-Instruct": "qwen2.5-vl-32b",
    "Qwen/Qwen2.5-VL-72B-Instruct": "qwen2.5-vl-72b",
    "Qwen/Qwen3-VL-2B-Instruct": "qwen3-vl-2b",
    "Qwen/Qwen3-VL-4B-Instruct": "qwen3-vl-4b",
    "Qwen/Qwen3-VL-8B-Instruct": "qwen3-vl-8b",
    "Qwen/Qwen3-VL-32B-Instruct": "qwen3-vl-32b",
    "Qwen/Qwen3-VL-30B-A3B-Instruct": "qwen3-vl-30b-a3b",
    "Qwen/Qwen3-VL-235B-A22B-Instruct": "qwen3-vl-235b-a22b",
    "Qwen/Qwen2-VL-2B-Instruct": "qwen2-vl-2b",
    "Qwen/Qwen2-VL-7B-Instruct": "qwen2-vl-7b",
    "Qwen/Qwen2-VL-72B-Instruct": "qwen2-vl-72b",
    "OpenGVLab/InternVL3-2B-hf": "internvl3-2b",
    "OpenGVLab/InternVL3-8B-hf": "internvl3-8b",
    "OpenGVLab/InternVL3-14B-hf": "internvl3-14b",
    "OpenGVLab/InternVL3-38B-hf": "internvl3-38b",
    "OpenGVLab/InternVL3_5-8B-HF": "internvl3.5-8b",
    "google/gemma-3-4b-it": "gemma-3-4b",
    "google/gemma-3-12b-it": "gemma-3-12b",
    "google/gemma-3-27b-it": "gemma-3-27b",
    "HuggingFaceTB/SmolVLM2-256M-Video-Instruct": "smolvlm2-256m",
    "HuggingFaceTB/SmolVLM2-500M-Video-Instruct": "smolvlm2-500m",
    "HuggingFaceTB/SmolVLM2-2.2B-Instruct": "smolvlm2-2.2b",
    "HuggingFaceM4/Idefics3-8B-Llama3": "idefics3-8b",
    "llava-next-7b": "llava-next-vicuna-7b",
    "llava-next-13b": "llava-next-vicuna-13b",
    "llava-v1.5-7b": "llava-1.5-7b",
    "llava-v1.5-13b": "llava-1.5-13b",
    "llava-1.6-7b": "llava-next-vicuna-7b",
    "llava-1.6-13b": "llava-next-vicuna-13b",
    "llava-v1.6-vicuna-7b": "llava-next-vicuna-7b",
    "llava-v1.6-vicuna-13b": "llava-next-vicuna-13b",
    "llava-v1.6-mistral-7b": "llava-next-mistral-7b",
    "llava-onevision-qwen2-7b": "llava-onevision-7b",
    "vicuna-7b": "llama-2-7b",
    "vicuna-13b": "llama-2-13b",
    "lmsys/vicuna-7b-v1.5": "llama-2-7b",
    "lmsys/vicuna-13b-v1.5": "llama-2-13b",
}


_LOWERED = {alias.lower(): name for alias, name in ALIASES.items()}


@lru_cache(maxsize=1)
def list_models() -> tuple[str, ...]:
    """Return the names of the shipped models.

    >>> "llava-1.5-7b" in list_models()
    True
    """
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.json")))


def load_model(source: Any, *, scale: str | None = None) -> ModelConfig:
    """Return a model.

    Args:
        source: a shipped name (see `list_models`), the path of a Hugging Face config.json or of its
            folder, a hub id, a config object of transformers, a live model that has one, a config as a
            dictionary, or a `ModelConfig`, which comes back as it is. Case makes no difference. A name
            or path may end in a scale: `llava-1.5-7b@layers=4,width=1/4`. A shipped name wins over a
            folder so called; `./NAME` means the folder.
        scale: the same scale as an argument.

    Raises:
        UnknownModelError: neither a shipped name nor a file.
        InvalidFileError: a config that is broken, foreign or impossible.
        InvalidInputError: a scale that does not divide, or a hub repository out of reach.
        MissingDependencyError: a hub id without huggingface_hub.

    >>> load_model("llava-1.5-7b").parameters
    7063427072
    >>> load_model("llava-1.5-7b@layers=4,width=1/4").text.hidden_size
    1024
    """
    name, suffix = split_scale(source) if isinstance(source, str) else (source, None)
    if scale is not None:
        if suffix is not None:
            raise InvalidInputError(f"{source!r} carries a scale already; drop scale={scale!r}")
        return _scaled(load_model(source), scale)
    if isinstance(source, ModelConfig):
        return source
    if isinstance(source, str) and (known := _shipped_or_none(source)) is not None:
        return known
    return _read(source) if suffix is None else _scaled(load_model(name), suffix)


def model_from_config(document: dict[str, Any], name: str) -> ModelConfig:
    """Return the model that a Hugging Face config describes.

    Raises:
        InvalidFileError: a config that is broken, foreign or impossible.

    >>> model_from_config(config_dict("llava-1.5-7b"), "mine").parameters
    7063427072
    """
    return read_model(document, name, name, name)


def held_config(source: object) -> ModelConfig | None:
    """Return the model of a config in memory, or None for anything else.

    Args:
        source: a config as a dictionary, a `PretrainedConfig` or a live model of transformers; known by
            what they can do (`to_dict`, `config`), so that nothing here imports them.

    Raises:
        InvalidFileError: a config that is broken, foreign or impossible.

    >>> held_config(config_dict("llava-1.5-7b")).parameters
    7063427072
    """
    if isinstance(source, (str, Path, ModelConfig)):
        return None
    config: Any = getattr(source, "config", source)
    try:
        document = config if isinstance(config, Mapping) else None
        if document is None and callable(getattr(config, "to_dict", None)):
            document = config.to_dict()
        if not isinstance(document, Mapping):
            return None
        # As a config.json would hold it: tuples as lists, keys and dtypes as text.
        plain = json.loads(json.dumps(dict(document), default=str))
    except Exception as error:
        raise InvalidFileError(
            f"a config in memory that no config.json can hold: {one_line(error, 200)}"
        ) from None
    origin = str(plain.get("_name_or_path") or "").rstrip("/").rpartition("/")[2]
    name = origin or str(plain.get("model_type", "config"))
    return replace(read_model(plain, name, name, "a config in memory"), is_checkpoint=True)


def config_dict(source: str | Path | ModelConfig) -> dict[str, Any]:
    """Return a model's Hugging Face config, as its config.json holds it.

    Raises:
        VlmRooflineError: as `load_model`, which takes the same sources.

    >>> config_dict("llava-1.5-7b")["model_type"]
    'llava'
    """
    document: dict[str, Any] = json.loads(load_model(source).config_json)
    return document


def is_shipped(name: str) -> bool:
    """Whether a name, without a scale, is a shipped model's or an alias of one.

    >>> is_shipped("llava-hf/llava-1.5-7b-hf"), is_shipped("./llava-1.5-7b")
    (True, False)
    """
    return _plain(name) in list_models()


def _plain(name: str) -> str:
    return _LOWERED.get(name.lower(), name.lower())


@lru_cache(maxsize=1024)
def _shipped_or_none(source: str) -> ModelConfig | None:
    """Return a shipped model, scaled if its name says so, or None for any other source."""
    name, scale = split_scale(source)
    name = _plain(name)
    if name not in list_models():
        return None
    document = read_document(_FOLDER / f"{name}.json")
    origin = f"huggingface.co/{document.get('_name_or_path', name)}"
    model = read_model(document, f"{name}.json", name, origin)
    return model if scale is None else _scaled(model, scale)


def _scaled(model: ModelConfig, scale: str) -> ModelConfig:
    wanted = parse_scale(scale)
    name = f"{model.name}@{wanted}"
    document = scaled_document(model, json.loads(model.config_json), wanted)
    return replace(
        read_model(document, name, name, model.source),
        is_checkpoint=model.is_checkpoint,
        geometry=model.geometry,
        budget_from=model.budget_from,
    )


def _read(source: object) -> ModelConfig:
    """Return the model of a config in memory, a file or a hub id."""
    if (held := held_config(source)) is not None:
        return held
    if not isinstance(source, (str, Path)):
        raise InvalidInputError(
            "a model is a shipped name, a path, a hub id, a config or a ModelConfig, not a "
            f"{type(source).__name__}"
        )
    text = str(source)
    path = _local(text)
    origin = str(path)
    if path is None:
        from costmodel.models.hub import fetch_config, is_hub_id

        if not is_hub_id(text):
            raise UnknownModelError(text, list_models(), aliases=ALIASES)
        path, origin = fetch_config(text), f"huggingface.co/{text}"
    document = read_document(path)
    if not any(document.get(key) for key in QUANTISED):
        beside = precision_beside(path)
        document = document if beside is None else {**document, QUANTISED[0]: beside}
    model = replace(read_model(document, str(path), text, origin), is_checkpoint=True)
    if model.vision is not None:
        model = with_processor(model, get_family(model.model_type).processed, path)
    return model


def _local(text: str) -> Path | None:
    """Return the config file that a text names, or None when it names no file."""
    if not text:
        return None
    try:
        path = user_path(text)
        found = look(path)
    except InvalidFileError:  # a name that no file can have, or no such ~user
        return None
    if found is not None and stat.S_ISDIR(found.st_mode):
        if look(path / "config.json") is None:
            raise InvalidFileError(f"{path}: a folder without config.json")
        return path / "config.json"
    if found is not None:
        return path
    if text.endswith(".json") or text.startswith((".", "/", "~")):
        raise InvalidFileError(f"{path}: no such file")
    return None
