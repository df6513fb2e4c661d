"""Size-reduced models: the same shape with fewer layers and a narrower width.

`layers=4,width=1/4` keeps at most 4 layers in the vision tower and in the language model, and a quarter
of width, FFN width, heads and KV heads in both. Head dims, vocabulary, image size and therefore
token counts stay, so that every kernel keeps its kind.
"""

from __future__ import annotations

import copy
import re
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from costmodel.models.families import get_family
from costmodel.models.towers import TOWERS
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costmodel.models.model import ModelConfig
    from costmodel.models.text import TextConfig
    from costmodel.models.vision import VisionConfig

_FORM = "layers=4,width=1/4 (either part alone will do)"
_SUFFIX = re.compile(r"(?:layers|width)=[^@]*\Z")


class Scale(NamedTuple):
    """What to keep of a model: at most `layers` layers, `width` of every width; None keeps all."""

    layers: int | None = None
    width: Fraction | None = None

    def __str__(self) -> str:
        """Return the scale as it is written."""
        parts = [] if self.layers is None else [f"layers={self.layers}"]
        return ",".join(parts if self.width is None else [*parts, f"width={self.width}"])


def split_scale(source: str) -> tuple[str, str | None]:
    """Return a model's name and its scale, None without one.

    >>> split_scale("llava-1.5-7b@layers=4,width=1/4")
    ('llava-1.5-7b', 'layers=4,width=1/4')
    >>> split_scale("models@home/config.json")
    ('models@home/config.json', None)
    """
    name, mark, suffix = source.rpartition("@")
    if mark and _SUFFIX.match(suffix):
        return name, suffix
    return source, None


def parse_scale(text: str) -> Scale:
    """Return the scale that a text describes.

    Raises:
        InvalidInputError: an unknown or repeated key, or a value out of its range.

    >>> parse_scale("layers=4,width=0.25")
    Scale(layers=4, width=Fraction(1, 4))
    """
    if not isinstance(text, str):
        raise InvalidInputError(f"a scale is written like {_FORM}, not {text!r}")
    found: dict[str, str] = {}
    for part in text.split(","):
        key, mark, value = (piece.strip() for piece in part.partition("="))
        if not mark or key not in ("layers", "width") or key in found:
            raise InvalidInputError(f"scale {text!r} is not of the form {_FORM}")
        found[key] = value
    return Scale(
        _layers(found["layers"]) if "layers" in found else None,
        _width(found["width"]) if "width" in found else None,
    )


def _layers(value: str) -> int:
    if re.fullmatch(r"[0-9]{1,6}", value) and int(value) >= 1:
        return int(value)
    raise InvalidInputError(f"scale layers={value} must be a whole number from 1")


def _width(value: str) -> Fraction:
    if re.fullmatch(r"[0-9]{1,6}(/[0-9]{1,6}|\.[0-9]{1,12})?", value):
        try:
            width = Fraction(value)
        except ZeroDivisionError:
            width = Fraction(0)
        if 0 < width <= 1:
            return width
    raise InvalidInputError(
        f"scale width={value} must be a fraction above 0 and up to 1, such as 1/4"
    )


def scaled_document(model: ModelConfig, document: dict[str, Any], scale: Scale) -> dict[str, Any]:
    """Return a Hugging Face config of the reduced model.

    Raises:
        InvalidInputError: a width that does not divide into whole heads.

    >>> from costmodel.models import config_dict, load_model
    >>> half = scaled_document(load_model("llama-2-7b"), config_dict("llama-2-7b"), parse_scale("width=1/2"))
    >>> half["hidden_size"], half["num_attention_heads"], half["num_hidden_layers"]
    (2048, 16, 32)
    """
    reduced = copy.deepcopy(document)
    text = reduced.get("text_config", reduced)
    try:
        _reduce(text, model.text, scale, "the language model's")
        text["num_key_value_heads"] = _share(
            model.text.num_kv_heads, scale, "the language model's KV heads"
        )
        if model.vision is not None:
            seen, tower = reduced["vision_config"], model.vision
            keys = TOWERS.get(seen.get("model_type", get_family(model.model_type).tower)).keys
            _reduce(seen, tower, scale, "the vision tower's", keys)
    except InvalidInputError as error:
        raise InvalidInputError(f"{model.name}: {error}") from None
    if isinstance(text.get("layer_types"), list):
        text["layer_types"] = text["layer_types"][: text["num_hidden_layers"]]
    if model.vision is not None:
        get_family(model.model_type).rescale(reduced)
    return reduced


def _reduce(
    values: dict[str, Any],
    part: TextConfig | VisionConfig,
    scale: Scale,
    whose: str,
    keys: Mapping[str, str] = {},
) -> None:
    layers = part.num_layers
    reduced = {
        "num_hidden_layers": layers if scale.layers is None else min(layers, scale.layers),
        "hidden_size": _share(part.hidden_size, scale, f"{whose} hidden_size"),
        "intermediate_size": _share(part.intermediate_size, scale, f"{whose} intermediate_size"),
        "num_attention_heads": _share(part.num_heads, scale, f"{whose} attention heads"),
    }
    values |= {keys.get(name, name): value for name, value in reduced.items()}


def _share(number: int, scale: Scale, what: str) -> int:
    """Return a number's share, which must be whole."""
    share = number * (scale.width or 1)
    if share != int(share) or share < 1:
        raise InvalidInputError(
            f"width={scale.width} would leave {share} of {number} for {what}, which is not whole; "
            "take a width that divides it"
        )
    return int(share)
