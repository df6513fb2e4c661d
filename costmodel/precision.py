"""Precision: what weights, activations and the KV cache are stored in, and what computes.

Storage and arithmetic are separate. `w4a16` keeps 4-bit weights with group scales and computes in
FP16 after dequantising; `w8a8` computes on INT8 units; `fp8` on FP8 units. As deployments do, only
the linear layers of the language model are quantised: the vision tower, the projector, the
embedding and the output head stay in 16 bits unless a module is named explicitly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from hardware_specs.errors import InvalidInputError, UnknownPrecisionError
from hardware_specs.showing import shown

#: Weights that share one scale when they have 4 bits or fewer (GPTQ, AWQ and tinygemm default).
GROUP_SIZE = 128
#: Bytes of one scale.
SCALE_BYTES = 2

MODULES = ("vision", "projector", "text", "lm_head")


class Numerics(NamedTuple):
    """How one module stores and computes.

    Attributes:
        name: the precision's name.
        weight_bytes: bytes per weight, scales apart.
        group_size: weights per scale along the input; 0 is one scale per output channel, -1 none.
        operand_bytes: bytes per activation element entering a matrix product.
        activation_bytes: bytes per activation element written and kept.
        kv_bytes: bytes per KV-cache element.
        linear_dtype: arithmetic of the linear layers, a peak's dtype.
        attention_dtype: arithmetic of attention and convolution.
        dequantise: whether weights are expanded before they are multiplied.
        label: the calibration's name for the linear layers.
    """

    name: str
    weight_bytes: float
    group_size: int
    operand_bytes: float
    activation_bytes: float
    kv_bytes: float
    linear_dtype: str
    attention_dtype: str
    dequantise: bool
    label: str


class Precision(NamedTuple):
    """The numerics of every module of a model."""

    name: str
    vision: Numerics
    projector: Numerics
    text: Numerics
    lm_head: Numerics


def _plain(name: str, size: int) -> Numerics:
    return Numerics(name, size, -1, size, size, size, name, name, False, name)


def _weights(name: str, bits: int, kv_bits: int = 16) -> Numerics:
    """Weight-only quantisation: FP16 arithmetic on dequantised weights."""
    group = GROUP_SIZE if bits <= 4 else 0
    label = f"w{bits}a16"
    return Numerics(name, bits / 8, group, 2, 2, kv_bits / 8, "fp16", "fp16", True, label)


def _full(name: str, dtype: str, bits: int, label: str, kv_bits: int = 16) -> Numerics:
    """Weights and operands quantised alike, outputs and attention in FP16."""
    group = GROUP_SIZE if bits <= 4 else 0
    return Numerics(name, bits / 8, group, bits / 8, 2, kv_bits / 8, dtype, "fp16", False, label)


_NAMED: dict[str, Numerics] = {
    "fp32": _plain("fp32", 4),
    "tf32": Numerics("tf32", 4, -1, 4, 4, 4, "tf32", "tf32", False, "tf32"),
    "fp16": _plain("fp16", 2),
    "bf16": _plain("bf16", 2),
    "w8a16": _weights("w8a16", 8),
    "w4a16": _weights("w4a16", 4),
    "w8a8": _full("w8a8", "int8", 8, "w8a8"),
    "fp8": _full("fp8", "fp8", 8, "fp8"),
    "w4a4": _full("w4a4", "int4", 4, "w4a4"),
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


def _numerics(name: str) -> Numerics:
    name = ALIASES.get(name, name)
    if name in _NAMED:
        return _NAMED[name]
    match = _BITS.match(name)
    if not match:
        raise UnknownPrecisionError(name, [*list_precisions(), "w<bits>a<bits>kv<bits>"])
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
    bits = 4 if activation <= 4 else 8
    stored = GROUP_SIZE if weight <= 4 else 0
    return _full(name, f"int{bits}", bits, f"w{bits}a{bits}", kv)._replace(
        weight_bytes=weight / 8, group_size=stored, dequantise=weight < bits
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
        return Precision(name, wide, wide, text, wide)
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
    return Precision(name, rest["vision"], rest["projector"], text, rest["lm_head"])


def parse_precision(precision: str | Mapping[str, str] | Precision) -> Precision:
    """Return the numerics of every module for a precision's name.

    A name quantises the language model's linear layers; `text=w4a16,vision=w8a8` (or a mapping)
    names modules one by one. `int4` means `w4a16`, `int8` means `w8a8`.

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
