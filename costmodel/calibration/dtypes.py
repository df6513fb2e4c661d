"""Dtype labels: what they are called elsewhere, what they store, and which peak they run at."""

from __future__ import annotations

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


LABELS: dict[str, Label] = {
    "bf16": Label(2, 2, 2, ("bf16", "fp16")),
    "fp16": Label(2, 2, 2, ("fp16", "bf16")),
    "fp32": Label(4, 4, 4, ("fp32",)),
    "tf32": Label(4, 4, 4, ("tf32",)),
    "fp8": Label(1, 1, 2, ("fp8",)),
    "w8a8": Label(1, 1, 2, ("int8",)),
    "w8a16": Label(1, 2, 2, ("fp16", "bf16")),
    "w4a16": Label(0.5, 2, 2, ("fp16", "bf16")),
    "w4a4": Label(0.5, 0.5, 2, ("int4",)),
}

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
}

#: Labels whose kernels reach alike shares of their peaks, which themselves may differ.
SIBLINGS = {"bf16": "fp16", "fp16": "bf16"}


def canonical(dtype: str) -> str:
    """Return the project's label for a dtype name.

    Raises:
        CalibrationError: a name that stands for no known arithmetic.

    >>> canonical("bfloat16"), canonical("sq"), canonical("w4a16")
    ('bf16', 'w8a8', 'w4a16')
    """
    name = str(dtype).strip().lower()
    name = ALIASES.get(name, name)
    if name not in LABELS:
        raise CalibrationError(
            f"unknown dtype {dtype!r}; there is: {', '.join(LABELS)} "
            f"(also {', '.join(sorted(ALIASES))})"
        )
    return name
