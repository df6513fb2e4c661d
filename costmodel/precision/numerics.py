"""What one module stores and computes in: weights, scales and zero points, activations, KV cache.

>>> fp16 = plain("fp16", 2)
>>> fp16.stored_bytes(4096, 4096)
33554432
"""

from __future__ import annotations

import re
from typing import NamedTuple

from hardware_specs.showing import brief

#: Modules whose numerics a precision names one by one.
MODULES = ("vision", "projector", "text", "lm_head")


class Scale(NamedTuple):
    """Numbers kept beside the weights of a [k, n] matrix: one per block of it.

    Scales, zero points, scales of scales and per-input indices all have this form.

    Attributes:
        bytes: of one such number.
        inputs: inputs per block; 0 is all k of them.
        outputs: outputs per block; 0 is all n of them.
        run: weights in a row per block whatever the matrix's shape, where the library flattens it.

    >>> Scale(2, inputs=128).total_bytes(4096, 4096)  # 2 B x 32 groups x 4096 outputs
    262144
    """

    bytes: float
    inputs: int = 0
    outputs: int = 1
    run: int = 0

    def total_bytes(self, k: int, n: int) -> float:
        """Bytes of all blocks of a [k, n] matrix."""
        if self.run:
            return self.bytes * -(-k * n // self.run)
        return self.bytes * -(-k // (self.inputs or k)) * -(-n // (self.outputs or n))


class Numerics(NamedTuple):
    """How one module stores and computes.

    Attributes:
        name: the precision's name.
        weight_bytes: bytes per weight, scales apart.
        scales: what is kept beside the weights.
        operand_bytes: bytes per activation element entering a matrix product.
        activation_bytes: bytes per activation element written and kept.
        kv_bytes: bytes per KV-cache element.
        linear_dtype: arithmetic of the linear layers, a peak's dtype.
        attention_dtype: arithmetic of attention and convolution.
        dequantise: whether weights are expanded before they are multiplied.
        label: the calibration's name for the linear layers, with the bits that are stored per weight.
        products: those linear layers of the module, by name, that differ from it.
    """

    name: str
    weight_bytes: float
    scales: tuple[Scale, ...]
    operand_bytes: float
    activation_bytes: float
    kv_bytes: float
    linear_dtype: str
    attention_dtype: str
    dequantise: bool
    label: str
    products: tuple[tuple[str, Numerics], ...] = ()

    def __repr__(self) -> str:
        """Return the fields that are set, as far as they fit."""
        return brief(self)

    @property
    def group_size(self) -> int:
        """Weights that share a scale along the input; 0 is all of a row's, -1 that there is none."""
        return (self.scales[0].run or self.scales[0].inputs) if self.scales else -1

    def of(self, product: str) -> Numerics:
        """Return the numerics of one linear layer of the module."""
        return next((own for name, own in self.products if name == product), self)

    def stored_bytes(self, k: int, n: int) -> float:
        """Bytes of a [k, n] matrix with all that is kept beside it."""
        return k * n * self.weight_bytes + sum(scale.total_bytes(k, n) for scale in self.scales)

    def in_wide(self, wide: Numerics) -> Numerics:
        """Return the same weights in a module whose other numbers are as `wide` says."""
        weight_only = self.dequantise and self.operand_bytes >= self.activation_bytes
        return self._replace(
            activation_bytes=wide.activation_bytes,
            kv_bytes=self.kv_bytes if self.kv_bytes < 2 else wide.kv_bytes,
            attention_dtype=wide.attention_dtype,
            operand_bytes=wide.operand_bytes if weight_only else self.operand_bytes,
            linear_dtype=wide.linear_dtype if weight_only else self.linear_dtype,
            label=(
                stored_label(8 * self.weight_bytes, self.scales, 32)
                if weight_only and wide.linear_dtype == "fp32"
                else self.label
            ),
            products=tuple((name, own.in_wide(wide)) for name, own in self.products),
        )


class Precision(NamedTuple):
    """The numerics of every module of a model.

    `embedding` is the stored form of the token embedding where that is quantised; None keeps it as
    wide as activations are.
    """

    name: str
    vision: Numerics
    projector: Numerics
    text: Numerics
    lm_head: Numerics
    embedding: Numerics | None = None

    def __repr__(self) -> str:
        """Return the fields that are set, as far as they fit."""
        return brief(self)

    @property
    def every(self) -> tuple[Numerics, ...]:
        """The numerics of all modules and of their single products, each once."""
        modules = (self.vision, self.projector, self.text, self.lm_head)
        products = (own for module in modules for _, own in module.products)
        return tuple(dict.fromkeys((*modules, *products)))


def plain(name: str, size: int) -> Numerics:
    """Return a floating format in which all is stored and computed."""
    return Numerics(name, size, (), size, size, size, name, name, False, name)


def stored_label(bits: float, scales: tuple[Scale, ...], operand_bits: int) -> str:
    """Return the calibration's name of weights, by the bits that a large matrix stores per weight.

    `bits` are those per weight, the scales beside them apart.

    >>> nf4 = (Scale(4, run=64),)
    >>> stored_label(4, nf4, 16), stored_label(4, (Scale(2, 128),), 16), stored_label(8, (Scale(2),), 16)
    ('w4.5a16', 'w4a16', 'w8a16')
    """
    blocks = [(scale.bytes, scale.run or scale.inputs * scale.outputs) for scale in scales]
    total = bits + sum(8 * size / block for size, block in blocks if block > 1)
    if operand_bits in (4, 16) and total == 4 + 16 / 128:
        total = 4  # The usual group is understood.
    return f"w{total:.3g}a{operand_bits}"


def label_note(label: str) -> str | None:
    """Say what the bits in a label are that holds more than whole ones; None for any other.

    >>> label_note("w4.16a16")
    'w4.16a16: 4.16 bits stored per weight, its share of scales and zero points included; 16-bit products'
    """
    found = re.fullmatch(r"w(\d+\.\d+)a(\d+)", label)
    return found and (
        f"{label}: {found[1]} bits stored per weight, its share of scales and zero points included; "
        f"{found[2]}-bit products"
    )


def weight_only(name: str, bits: float, scales: tuple[Scale, ...]) -> Numerics:
    """Return narrow weights that are expanded and multiplied in FP16."""
    label = stored_label(bits, scales, 16)
    return Numerics(name, bits / 8, scales, 2, 2, 2, "fp16", "fp16", True, label)


def both_narrow(
    name: str, bits: float, scales: tuple[Scale, ...], dtype: str, label: str
) -> Numerics:
    """Return weights and operands quantised alike; outputs and attention in FP16.

    `dtype` is the arithmetic's peak, `label` the calibration's name.
    """
    return Numerics(name, bits / 8, scales, bits / 8, 2, 2, dtype, "fp16", False, label)


class Resolved(NamedTuple):
    """What is priced, what to say about it, and where it comes from."""

    precision: Precision
    warnings: tuple[str, ...]
    origin: str

    def __repr__(self) -> str:
        """Return the fields that are set, as far as they fit."""
        return brief(self)
