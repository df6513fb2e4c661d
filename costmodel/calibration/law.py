"""The time law: an overhead, and a smooth maximum of arithmetic and memory time.

    t = t0 + ((F / (e_P P))^p + (B / (e_B BW))^p)^(1/p)

F FLOP, B bytes, P and BW the datasheet's peak and bandwidth; e_P, e_B, t0 and p are fitted per op
class and dtype. p = 1 adds the two times (nothing overlaps), p = infinity takes the larger
(everything does), and e = 1, t0 = 0, p = infinity is the ideal roofline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hardware_specs.errors import CalibrationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costmodel.calibration.parameters import Device

#: Above this exponent the power sum is its maximum to double precision's last digits.
HARD_EXPONENT = 200.0
_NUMBERS = (int, float)
_NO_TIME = "an op's work is negative or no number, so it has no time; the request cannot be priced"


def combine(a: Any, b: Any, exponent: float) -> Any:
    """Return (a^p + b^p)^(1/p), the p-norm of two times, without overflow.

    Args:
        a: seconds, a number or an array.
        b: seconds, a number or an array.
        exponent: p >= 1; infinity gives the maximum.

    Raises:
        CalibrationError: a time that is negative or no number, which no run can take.

    >>> float(combine(3.0, 4.0, 2.0)), float(combine(3.0, 4.0, 1.0))
    (5.0, 7.0)
    >>> float(combine(3.0, 4.0, float("inf")))
    4.0
    """
    # An estimate asks for single numbers, on which numpy spends ten times their arithmetic.
    if isinstance(a, _NUMBERS) and isinstance(b, _NUMBERS):
        high, low = (a, b) if a >= b else (b, a)
        if not (a >= 0 and b >= 0):
            raise CalibrationError(_NO_TIME)
        if exponent >= HARD_EXPONENT or not high:
            return high
        return high * (1.0 + (low / high) ** exponent) ** (1.0 / exponent)
    high, low = np.maximum(a, b), np.minimum(a, b)
    if low.size and not low.min() >= 0:  # NaN compares false as well
        raise CalibrationError(_NO_TIME)
    if exponent >= HARD_EXPONENT:
        return high
    # Factoring the larger out keeps microseconds to the p-th power out of the subnormals.
    time = low / np.maximum(high, 1e-300)
    time **= exponent
    time += 1.0
    time **= 1.0 / exponent
    time *= high
    return time


class StreamLaw(NamedTuple):
    """The law of kernels that pass over their bytes once, on one device.

    The first half of the L2 cache's capacity moves at L2 speed, the rest at e_B BW, so the time is
    continuous and never falls when the bytes rise:

        T_mem = B / BW_L2 + max(0, B - L2 / 2) (1 / (e_B BW) - 1 / BW_L2)

    Attributes:
        cached_bytes: L2 / 2.
        fast_s_per_byte: 1 / BW_L2.
        more_s_per_byte: what a byte beyond those takes longer.
        flop_per_s: e_P P outside the matrix units; 0 where no peak is known and arithmetic takes no time.
        overhead_s: t0.
        exponent: p.
    """

    cached_bytes: float
    fast_s_per_byte: float
    more_s_per_byte: float
    flop_per_s: float
    overhead_s: float
    exponent: float

    @classmethod
    def of(cls, values: Mapping[str, float], device: Device) -> StreamLaw:
        """Return the law of fitted parameters on a device.

        Args:
            values: the law's parameters and `l2_bandwidth_ratio`, BW_L2 / BW; at most e_B means that
                no cache speed is modelled.
            device: peaks and bandwidth.
        """
        bandwidth = device.bandwidth_bytes_per_s
        slow = 1.0 / (values["memory_efficiency"] * bandwidth)
        ratio = values.get("l2_bandwidth_ratio", 0.0)
        fast = min(slow, 1.0 / (ratio * bandwidth)) if ratio else slow
        rate = values["compute_efficiency"] * (device.vector_flop_per_s or 0.0)
        return cls(
            device.l2_bytes / 2, fast, slow - fast, rate, values["overhead_s"], values["exponent"]
        )

    def time_s(self, bytes: Any, flops: Any = 0.0) -> Any:  # noqa: A002
        """Return the seconds of a kernel, numbers or arrays.

        Args:
            bytes: B read and written.
            flops: FLOP outside the matrix units.
        """
        cached, fast, more, rate, overhead, exponent = self
        beyond = bytes - cached
        beyond = max(0.0, beyond) if isinstance(bytes, _NUMBERS) else np.maximum(0.0, beyond)
        memory = bytes * fast
        memory += beyond * more
        work = flops / rate if rate else 0.0 * flops
        return overhead + combine(work, memory, exponent)
