"""Names of precisions, and what they stand for.

`w4a16` keeps 4-bit weights with group scales and computes in FP16 after dequantising; `w8a8` computes on
INT8 units; `fp8` on FP8 units. These, as deployments do, quantise the linear layers of the language model
alone: the vision tower, the projector, the embedding and the output head stay in 16 bits unless a module
is named explicitly. The formats of `costmodel.precision.formats` quantise what their library does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from costmodel.precision.formats import FORMATS
from costmodel.precision.numerics import (
    MODULES,
    Numerics,
    Precision,
    Scale,
    both_narrow,
    plain,
    stored_label,
    weight_only,
)
from hardware_specs.errors import InvalidInputError, UnknownPrecisionError
from hardware_specs.showing import shown

#: Weights that share one scale when they have 4 bits or fewer (GPTQ, AWQ and tinygemm default).
GROUP_SIZE = 128
#: Bytes of one scale.
SCALE_BYTES = 2


def scales_of(bits: int) -> tuple[Scale, ...]:
    """Return the scales of weights of so many bits: per group up to 4 bits, else per output."""
    return (Scale(SCALE_BYTES, GROUP_SIZE if bits <= 4 else 0),)


def _weights(name: str, bits: int, kv_bits: int = 16) -> Numerics:
    """Weight-only quantisation: FP16 arithmetic on dequantised weights."""
    return weight_only(name, bits, scales_of(bits))._replace(kv_bytes=kv_bits / 8)


def _full(name: str, dtype: str, bits: int, label: str, kv_bits: int = 16) -> Numerics:
    """Weights and operands quantised alike, outputs and attention in FP16."""
    return both_narrow(name, bits, scales_of(bits), dtype, label)._replace(kv_bytes=kv_bits / 8)


_NAMED: dict[str, Numerics] = {
    "fp32": plain("fp32", 4),
    "tf32": Numerics("tf32", 4, (), 4, 4, 4, "tf32", "tf32", False, "tf32"),
    "fp16": plain("fp16", 2),
    "bf16": plain("bf16", 2),
    "w8a16": _weights("w8a16", 8),
    "w4a16": _weights("w4a16", 4),
    "w8a8": _full("w8a8", "int8", 8, "w8a8"),
    "fp8": _full("fp8", "fp8", 8, "fp8"),
    "w4a4": _full("w4a4", "int4", 4, "w4a4"),
    **{name: form.text for name, form in FORMATS.items()},
}
#: What the command line's short names mean.
ALIASES = {
    "int4": "w4a16",
    "int8": "w8a8",
    "float16": "fp16",
    "half": "fp16",
    "bfloat16": "bf16",
    "float32": "fp32",
}
_BITS = re.compile(r"w(\d+)a(\d+)kv(\d+)\Z")
_STORED_BITS = (2, 3, 4, 8, 16)


def list_precisions() -> tuple[str, ...]:
    """Name the precisions, the short names included; `w<bits>a<bits>kv<bits>` goes beyond them."""
    return tuple(_NAMED) + tuple(ALIASES)


def spelled(name: str) -> str:
    """Return a name as the tables spell it: small letters, and `-` for `_`.

    >>> spelled("FP8_block")
    'fp8-block'
    """
    return name.strip().lower().replace("_", "-")


def _numerics(given: str) -> Numerics:
    name = spelled(given)
    name = ALIASES.get(name, name)
    if name in _NAMED:
        return _NAMED[name]
    match = _BITS.match(name)
    if not match:
        raise UnknownPrecisionError(given, [*list_precisions(), "w<bits>a<bits>kv<bits>"])
    weight, activation, kv = (int(bits) for bits in match.groups())
    for bits in (weight, activation, kv):
        if bits not in _STORED_BITS:
            raise InvalidInputError(
                f"precision {name!r} asks for {bits} bits; "
                f"there are {', '.join(map(str, _STORED_BITS))}"
            )
    if weight == activation == 16:
        return _NAMED["fp16"]._replace(name=name, kv_bytes=kv / 8)
    if activation == 16:
        return _weights(name, weight, kv)
    if weight > activation:
        raise InvalidInputError(
            f"precision {name!r} has wider weights than activations, which no kernel computes; "
            f"use w{activation}a{activation}kv{kv} or w{weight}a16kv{kv}"
        )
    # Narrow operands meet in the narrowest integer unit that holds both.
    bits, scales = 4 if activation <= 4 else 8, scales_of(weight)
    label = stored_label(weight, scales, bits)
    return _full(name, f"int{bits}", bits, label, kv)._replace(
        weight_bytes=weight / 8, scales=scales, dequantise=weight < bits
    )


def _wide(numerics: Numerics) -> Numerics:
    """Return the 16-bit (or wider) numerics that the unquantised modules keep."""
    if numerics.weight_bytes >= 2:
        return numerics._replace(kv_bytes=numerics.activation_bytes)
    return _NAMED[numerics.attention_dtype]


@lru_cache(maxsize=256)
def _parse(name: str) -> Precision:
    if "=" not in name:
        text = _numerics(name)
        wide = _wide(text)
        form = FORMATS.get(spelled(name))
        if form is None:
            return Precision(spelled(name), wide, wide, text, wide)
        vision, projector, *_ = (text if module in form.modules else wide for module in MODULES)
        return Precision(text.name, vision, projector, text, form.lm_head or wide, form.embedding)
    parts: dict[str, str] = {}
    for part in name.split(","):
        module, _, value = part.partition("=")
        if module not in MODULES or not value or module in parts:
            raise InvalidInputError(
                f"precision {name!r}: {part!r} is not MODULE=PRECISION with each of "
                f"{', '.join(MODULES)} at most once"
            )
        parts[module] = value
    if "text" not in parts:
        raise InvalidInputError(f"precision {name!r} must name at least text=PRECISION")
    text = _numerics(parts["text"])
    wide = _wide(text)
    rest = {m: _numerics(parts[m]) if m in parts else wide for m in MODULES if m != "text"}
    form = FORMATS.get(spelled(parts.get("lm_head", "")))
    if form is not None and form.lm_head is not None:
        rest["lm_head"] = form.lm_head
    return Precision(name, rest["vision"], rest["projector"], text, rest["lm_head"])


def parse_precision(precision: str | Mapping[str, str] | Precision) -> Precision:
    """Return the numerics of every module for a precision's name.

    A name quantises the language model's linear layers; `text=w4a16,vision=w8a8` (or a mapping)
    names modules one by one. `int4` means `w4a16`, `int8` means `w8a8`. A named format (`awq`, `nf4`)
    quantises the modules that its library does. Case does not matter, and `_` is read as `-`.

    Args:
        precision: a name, a `module=name` list, a mapping, or a `Precision`.

    Raises:
        UnknownPrecisionError: no such name.
        InvalidInputError: a combination of bits that no kernel computes.

    >>> p = parse_precision("int4")
    >>> p.text.weight_bytes, p.text.linear_dtype, p.vision.weight_bytes
    (0.5, 'fp16', 2)
    """
    if isinstance(precision, Precision):
        return precision
    if isinstance(precision, Mapping):
        for module, name in precision.items():
            if not (isinstance(module, str) and isinstance(name, str)):
                raise InvalidInputError(
                    f"precision takes module=name pairs of text, not {shown(module)}: {shown(name)}"
                )
        precision = ",".join(f"{module}={name}" for module, name in precision.items())
    if not isinstance(precision, str):
        raise InvalidInputError(f"precision must be a name, not {shown(precision)}")
    return _parse(precision)
