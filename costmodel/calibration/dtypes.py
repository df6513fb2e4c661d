"""Dtype labels: what they are called elsewhere, what they store, and which peak they run at.

`w<bits>a<bits>` names stored weights and the operands that they meet. Bits that are no whole number
count the scales and zero points: `w4.5a16` is NF4. `w4a16` and `w4a4` keep a 16-bit scale per group of
128 beside, which their measured laws do not count, so the laws of other formats count as many bytes less
than they store.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from hardware_specs.errors import CalibrationError


class Label(NamedTuple):
    """How a matrix product of one dtype label stores and computes.

    Attributes:
        weight_bytes: bytes per weight, scales apart.
        operand_bytes: bytes per element of the left operand as the multiplying kernel reads it.
        output_bytes: bytes per output element.
        arithmetic: peaks it can run at, best first.
    """

    weight_bytes: float
    operand_bytes: float
    output_bytes: float
    arithmetic: tuple[str, ...]


_STORED = re.compile(r"w([1-9]\d*(?:\.\d+)?)a(4|8|16|32)\Z")
#: Labels of no class that is usually measured -> those whose kernels are most alike.
_NEAR = {"fp4": "fp8", "fp8-block": "fp8", "fp64": "fp32"}
#: Bits that the laws of 4-bit weights count, over those that are stored.
_COUNTED = 4 / (4 + 16 / 128)


class _Labels(dict[str, Label]):
    """The labels that a calibration may hold; any other `w<bits>a<bits>` is worked out when asked for."""

    def __missing__(self, name: str) -> Label:
        stored = _STORED.match(name)
        like = stand_in(name)
        if stored is None or like is None:
            raise KeyError(name)
        counted = _COUNTED if self[like].weight_bytes == 0.5 else 1
        return self[like]._replace(weight_bytes=float(stored[1]) / 8 * counted)


def stand_in(label: str) -> str | None:
    """Return the label whose kernels are most alike, None for one that has none.

    >>> stand_in("w4.5a16"), stand_in("fp4"), stand_in("fp64"), stand_in("bf16")
    ('w4a16', 'fp8', 'fp32', None)
    """
    if label in _NEAR:
        return _NEAR[label]
    stored = _STORED.match(label)
    if stored is None:
        return None
    narrow = float(stored[1]) <= 6
    like = {"16": "w4a16" if narrow else "w8a16", "8": "w8a8", "4": "w4a4", "32": "fp32"}[stored[2]]
    return None if like == label else like


LABELS: dict[str, Label] = _Labels(
    {
        "bf16": Label(2, 2, 2, ("bf16", "fp16")),
        "fp16": Label(2, 2, 2, ("fp16", "bf16")),
        "fp64": Label(8, 8, 8, ("fp64",)),
        "fp32": Label(4, 4, 4, ("fp32",)),
        "tf32": Label(4, 4, 4, ("tf32",)),
        "fp8": Label(1, 1, 2, ("fp8",)),
        # An FP32 scale per 128 x 128 weights, and per 128 operands.
        "fp8-block": Label(1 + 4 / 128**2, 1 + 4 / 128, 2, ("fp8",)),
        "w8a8": Label(1, 1, 2, ("int8",)),
        "w8a16": Label(1, 2, 2, ("fp16", "bf16")),
        "w4a16": Label(0.5, 2, 2, ("fp16", "bf16")),
        "w4a4": Label(0.5, 0.5, 2, ("int4",)),
        # An FP8 scale per 16 elements, in the operands as in the weights.
        "fp4": Label(0.5625, 0.5625, 2, ("fp4",)),
    }
)

#: Names other programs and tables use.
ALIASES = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "float32": "fp32",
    "float": "fp32",
    "torch.bfloat16": "bf16",
    "torch.float16": "fp16",
    "torch.float32": "fp32",
    "int4_wo": "w4a16",
    "int8_wo": "w8a16",
    "sq": "w8a8",
    "int8": "w8a8",
    "int4": "w4a16",
    "nvfp4": "fp4",
    "fp8_block": "fp8-block",
}

#: Labels whose kernels reach alike shares of their peaks, which themselves may differ.
SIBLINGS = {"bf16": "fp16", "fp16": "bf16"}


def canonical(dtype: str) -> str:
    """Return the project's label for a dtype name.

    Raises:
        CalibrationError: a name that stands for no known arithmetic.

    >>> canonical("bfloat16"), canonical("sq"), canonical("w4.5a16")
    ('bf16', 'w8a8', 'w4.5a16')
    """
    name = str(dtype).strip().lower()
    name = ALIASES.get(name, name)
    if name not in LABELS and stand_in(name) is None:
        raise CalibrationError(
            f"unknown dtype {dtype!r}; there is: {', '.join(LABELS)} "
            f"(also {', '.join(sorted(ALIASES))})"
        )
    return name
