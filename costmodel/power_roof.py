"""The third roof: what the board's power limit lets arithmetic and traffic do under sustained load.

    t_power = (e F + b B) / (W (1 - s)),   s = 0.2

F FLOP, B bytes, W the board's limit, s the share that does not scale with work. e is joule per FLOP in 16
bits, by architecture; b joule per byte, by kind of memory. A load reaches this roof after 0.1 to 1 s;
bursts run above it, so whoever times one request on an idle card gives a limit that does not bind. Only
e / (1 - s) was identified, from sustained products and prefills:

| architecture | e, pJ/FLOP | from |
|---|---|---|
| Volta, Turing | 2.1 | a T4 that sustains 26 to 28 TFLOP/s in FP16; Volta's is Turing's |
| Ampere, A100 | 1.22 | the best tenth of public A100 products above 1 ms |
| Ampere, other chips | 1.95 | the best tenth of public RTX A6000 products above 1 ms; Orin's is the same |
| Ada | 1.05 | prefill layers of an L4 (Thesys-lab/Helix-ASPLOS25) |
| Hopper | 0.61 | the best tenth of public H100 products above 1 ms: it hardly ever binds |
| Blackwell | 0.95 | assumed, at most this |

One number per process node fails: Ada and Hopper share one and differ by 1.7. Within an architecture the
left-out card is met within a tenth. These constants make no energy model: clock and voltage are higher
off the roof.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from costmodel.calibration.dtypes import LABELS

if TYPE_CHECKING:
    from costmodel.quantities import Num
    from hardware_specs import HardwareSpec

#: Share of the limit that work does not get.
STATIC_SHARE = 0.2
#: Joule per FLOP in 16 bits by CUDA compute capability; the longest key that begins it holds.
JOULE_PER_FLOP = {
    "7.": 2.1e-12, "8.0": 1.22e-12, "8.6": 1.95e-12, "8.7": 1.95e-12, "8.9": 1.05e-12,
    "9.": 0.61e-12, "10.": 0.95e-12, "11.": 0.95e-12, "12.": 0.95e-12,
}  # fmt: skip
#: Joule per byte: stacked and low-power memory against GDDR.
JOULE_PER_BYTE, JOULE_PER_GDDR_BYTE = 60e-12, 100e-12
#: Energy of other arithmetic over that of 16 bits: upper bounds from A100 int8 and H100 fp8; fp4 assumed.
SCALES = {"fp16": 1.0, "bf16": 1.0, "int8": 0.55, "fp8": 0.55, "int4": 0.33, "fp4": 0.33}
#: FP32 on the vector units of the 12 nm chips, from a T4; elsewhere nothing is known of it.
JOULE_PER_FP32 = {"7.": 15e-12}


class PowerRoof(NamedTuple):
    """A device's power roof.

    Attributes:
        limit_w: the board's limit, W.
        joule_per_flop: in 16 bits.
        joule_per_fp32: in FP32; None where it is not known.
        joule_per_byte: of device memory.
    """

    limit_w: float
    joule_per_flop: float
    joule_per_fp32: float | None
    joule_per_byte: float

    def joules_per_flop(self, dtype: str) -> float | None:
        """Return the energy of one FLOP of a dtype label's arithmetic, None where it is not known."""
        arithmetic = LABELS[dtype].arithmetic[0]
        if arithmetic == "fp32":
            return self.joule_per_fp32
        scale = SCALES.get(arithmetic)
        return None if scale is None else scale * self.joule_per_flop

    def rates(self, dtype: str) -> tuple[Num, Num] | None:
        """Return the least seconds of a FLOP of a dtype label's arithmetic and of a byte, None as above."""
        joules = self.joules_per_flop(dtype)
        if joules is None:
            return None
        return self.seconds(1.0, 0.0, joules), self.seconds(0.0, 1.0, joules)

    def seconds(self, flops: Num, hbm_bytes: Num, joule_per_flop: float) -> Num:
        """Return the least seconds of work under sustained load.

        Args:
            flops: FLOPs that the matrix units execute.
            hbm_bytes: traffic to device memory.
            joule_per_flop: from `joules_per_flop`.

        >>> roof = PowerRoof(100.0, 1e-12, None, 60e-12)
        >>> roof.seconds(70e12, 1e11, 1e-12)
        0.95
        """
        joules = joule_per_flop * flops + self.joule_per_byte * hbm_bytes
        return joules / (self.limit_w * (1 - STATIC_SHARE))


def power_roof(hardware: HardwareSpec, limit_w: float | None = None) -> PowerRoof | None:
    """Return the power roof of a device, None where its architecture or its limit is not known.

    Args:
        hardware: the device.
        limit_w: the board's limit where it is not the device's own, W.

    >>> from hardware_specs import get_hardware
    >>> power_roof(get_hardware("nvidia-l4")).limit_w
    72.0
    """
    limit = hardware.tdp_w if limit_w is None else limit_w
    capability = str(hardware.compute_capability or "")
    joule = _held(JOULE_PER_FLOP, capability)
    if not limit or joule is None:
        return None
    gddr = "gddr" in str(hardware.memory_kind or "").lower()
    return PowerRoof(
        float(limit),
        joule,
        _held(JOULE_PER_FP32, capability),
        JOULE_PER_GDDR_BYTE if gddr else JOULE_PER_BYTE,
    )


def _held(table: dict[str, float], capability: str) -> float | None:
    return next((value for start, value in table.items() if capability.startswith(start)), None)
