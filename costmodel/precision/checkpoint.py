"""A checkpoint's own precision, as its config.json says it: `dtype` and `quantization_config`."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, NamedTuple

from costmodel.models.beside import QUANTISED
from costmodel.precision.schemes import Keys, Quantisation, read_quantisation
from hardware_specs.errors import InvalidFileError
from hardware_specs.showing import shown

_DTYPES = {
    "float16": "fp16", "half": "fp16", "fp16": "fp16",
    "bfloat16": "bf16", "bf16": "bf16",
    "float32": "fp32", "float": "fp32", "fp32": "fp32",
}  # fmt: skip
#: Keys of a dtype, the one that counts first.
_KEYS = ("dtype", "torch_dtype")


class Checkpoint(NamedTuple):
    """What a config.json says of the weights beside it.

    Attributes:
        file: for messages.
        text: dtype of the language model's weights that are not quantised; None is unsaid.
        vision: the same of the vision tower and the projector.
        quantisation: how linear layers are quantised, or None.
        text_only: whether the language model alone says so, in its own part of the config.
    """

    file: str
    text: str | None
    vision: str | None
    quantisation: Quantisation | None
    text_only: bool = False


@lru_cache(maxsize=64)
def read_checkpoint(config_json: str, file: str) -> Checkpoint:
    """Return what a config says of its checkpoint's precision.

    A key at the top holds for the whole model, as `transformers` loads it; one inside `text_config` or
    `vision_config` for that part.

    Raises:
        InvalidFileError: a dtype or a quantisation that is unknown, or whose bytes the file cannot tell.

    >>> read_checkpoint('{"torch_dtype": "bfloat16"}', "config.json").text
    'bf16'
    """
    document: dict[str, Any] = json.loads(config_json)
    parts = {name: document.get(f"{name}_config") for name in ("text", "vision")}
    inner = {name: part if isinstance(part, dict) else {} for name, part in parts.items()}
    whole = _dtype(document, file, "")
    text = whole or _dtype(inner["text"], file, "text_config.")
    vision = whole or _dtype(inner["vision"], file, "vision_config.") or text
    for values, path in ((document, ""), (inner["text"], "text_config.")):
        for key in QUANTISED:
            # compressed-tensors writes an empty object where nothing is quantised.
            if values.get(key) not in (None, {}):
                found = read_quantisation(Keys(values[key], file, path + key))
                return Checkpoint(file, text, vision, found, bool(path))
    return Checkpoint(file, text, vision, None)


def _dtype(values: dict[str, Any], file: str, path: str) -> str | None:
    for key in _KEYS:
        value = values.get(key)
        if value is None or value == "auto":
            continue
        return dtype_named(value, f"{file}: {path}{key}")
    return None


def dtype_named(value: Any, where: str) -> str:
    """Return this project's name of a torch dtype.

    Raises:
        InvalidFileError: no dtype that a model is loaded in.

    >>> dtype_named("torch.float16", "config.json: dtype")
    'fp16'
    """
    name = value.removeprefix("torch.") if isinstance(value, str) else None
    if name not in _DTYPES:
        raise InvalidFileError(
            f"{where} is {shown(value)}; there are float16, bfloat16, float32; give precision= "
            "(--precision) to price another format"
        )
    return _DTYPES[name]
