"""What LLM-Viewer is told: its own device table, and bit widths by name.

The table is the tool's, not this project's: its names, its bandwidths, its two peaks per device.
Compare `hardware_specs` for what the devices do by their data sheets (a V100 has no INT8 tensor
cores: 62 TOPS is its DP4A rate).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import (
    InvalidInputError,
    MissingPeakError,
    UnknownHardwareError,
    UnknownPrecisionError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Device:
    """One row of LLM-Viewer's device table.

    Attributes:
        bandwidth_bytes_per_s: memory bandwidth.
        fp16_flop_per_s: the peak used unless everything has 8 bits or fewer.
        int8_flop_per_s: the peak used when weights, activations and KV have 8 bits or fewer.
    """

    bandwidth_bytes_per_s: float
    fp16_flop_per_s: float
    int8_flop_per_s: float


#: LLM-Viewer's `hardware_params.py`; sparse peaks are halved there.
DEVICES: Mapping[str, Device] = MappingProxyType(
    {
        "nvidia_V100": Device(900e9, 112e12, 62e12),
        "nvidia_A100": Device(1555e9, 312e12, 624e12),
        "nvidia_A100_40G": Device(1555e9, 312e12, 624e12),
        "nvidia_A100_80G": Device(2039e9, 312e12, 624e12),
        "nvidia_A6000": Device(768e9, 154.8385e12, 309.7e12),
        "nvidia_A40": Device(696e9, 149.7e12, 299.3e12),
        "nvidia_H100": Device(3072e9, 989.5e12, 1979e12),
        "nvidia_H100_PCIe": Device(2048e9, 756.5e12, 1513e12),
        "nvidia_L40": Device(864e9, 181e12, 362e12),
    }
)


def get_device(hardware: Any) -> Device:
    """Return a row of LLM-Viewer's device table.

    Raises:
        UnknownHardwareError: no such row, the project's own device ids included.

    >>> get_device("nvidia_V100").int8_flop_per_s
    62000000000000.0
    """
    name = getattr(hardware, "id", hardware)
    if name is None:
        raise InvalidInputError(
            "LLM-Viewer computes times, so it needs a device of its own table: "
            + ", ".join(DEVICES)
        )
    if not isinstance(name, str) or name not in DEVICES:
        raise UnknownHardwareError(name, DEVICES)
    return DEVICES[name]


@dataclass(frozen=True, slots=True)
class BitWidths:
    """Bits per weight, activation and KV-cache element; bytes may be fractional.

    >>> BitWidths(4, 16, 16).weight_bytes, BitWidths(16, 16, 16).kv_bytes
    (0.5, 2)
    """

    weight_bits: float
    activation_bits: float
    kv_bits: float

    @property
    def weight_bytes(self) -> float:
        """Bytes per weight."""
        return _bytes(self.weight_bits)

    @property
    def activation_bytes(self) -> float:
        """Bytes per activation element."""
        return _bytes(self.activation_bits)

    @property
    def kv_bytes(self) -> float:
        """Bytes per KV-cache element."""
        return _bytes(self.kv_bits)

    def peak_flop_per_s(self, device: Device) -> float:
        """Return the peak LLM-Viewer divides by: INT8 when all three have 8 bits or fewer.

        Operations are not scaled by bit width, so 4-bit work runs at the INT8 rate.
        """
        if max(self.weight_bits, self.activation_bits, self.kv_bits) <= 8:
            return device.int8_flop_per_s
        return device.fp16_flop_per_s


def _bytes(bits: float) -> float:
    """Bits in bytes, whole numbers kept integers so that counts stay exact."""
    return int(bits) // 8 if bits % 8 == 0 else bits / 8


_BITS = re.compile(r"w(\d+(?:\.\d+)?)a(\d+(?:\.\d+)?)(?:kv(\d+(?:\.\d+)?))?\Z")
#: The project's names for precisions, in LLM-Viewer's three numbers.
_NAMES = MappingProxyType(
    dict.fromkeys(("fp16", "float16", "half", "bf16", "bfloat16"), "w16a16kv16")
    | {"int8": "w8a8", "fp8": "w8a8", "int4": "w4a16"}
)
_WIDE = ("fp32", "float32", "tf32")


def parse_bits(precision: Any) -> BitWidths:
    """Return the bit widths that a precision's name, or that of an object with one, stands for.

    `w4a4kv4` gives all three; without `kv` the cache takes the activations' width, as LLM-Viewer
    does. `fp16` and `bf16` are 16 bits throughout, `int8` and `fp8` are `w8a8`, `int4` is `w4a16`.

    Raises:
        UnknownPrecisionError: not such a name.
        MissingPeakError: a 32-bit precision, for which LLM-Viewer has no peak.
        InvalidInputError: bits outside 1 to 16.

    >>> parse_bits("w8a8")
    BitWidths(weight_bits=8, activation_bits=8, kv_bits=8)
    """
    name = getattr(precision, "name", precision)
    if name in _WIDE:
        raise MissingPeakError(
            f"precision {name!r}: LLM-Viewer's device table holds FP16 and INT8 peaks alone; "
            "use fp16 or w<bits>a<bits>kv<bits> with at most 16 bits"
        )
    match = _BITS.match(_NAMES.get(name, name)) if isinstance(name, str) else None
    if match is None:
        raise UnknownPrecisionError(name, [*_NAMES, "w<bits>a<bits>kv<bits>"])
    weight, activation, kv = match.groups()
    bits = [float(text) for text in (weight, activation, kv or activation)]
    if not all(1 <= width <= 16 for width in bits):
        raise InvalidInputError(
            f"precision {name!r}: LLM-Viewer takes 1 to 16 bits, since its widest peak is FP16"
        )
    return BitWidths(*(int(width) if width.is_integer() else width for width in bits))
