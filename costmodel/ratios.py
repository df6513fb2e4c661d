"""The interval of a ratio of two estimates, whose errors are largely the same.

A method is compared with the unreduced run on one device: if its matrix products are 8 % slower than
predicted, so are the other's. Both sides are drawn from the model of `costmodel.uncertainty` with the
same error for each class they share, for each op that both run alike, and for the host.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

import numpy as np

from costmodel.parallel.exchange import COLLECTIVES
from costmodel.parallel.network import LINK
from costmodel.quantities import REQUEST
from costmodel.uncertainty import HOST, SOURCE_MIDDLE, SOURCE_SPREAD, shared_share
from hardware_specs.errors import UnknownNameError

if TYPE_CHECKING:
    from costmodel.calibration import ClassParameters
    from costmodel.result import Estimate, OpRow

#: Draws behind an interval; each error's own distribution is met exactly at any number.
DRAWS = 2000
_Z = np.array([NormalDist().inv_cdf((i + 0.5) / DRAWS) for i in range(DRAWS)])
#: Quantities that ratios are taken of.
QUANTITIES = ("time_s", "ttft_s", "tpot_s", "prefill_s")
#: The language model's part of the time to the first token, a method's own work with it.
_PREFILL = ("reduction", "prefill")


class Ratio(NamedTuple):
    """A ratio of two predictions and its 90 % interval, the prediction inside."""

    value: float
    low: float
    high: float


def ratio_interval(estimate: Estimate, baseline: Estimate, quantity: str = "time_s") -> Ratio:
    """Return by what a quantity of one estimate is that of another, with a 90 % interval.

    The draws are seeded by what they stand for, so that the answer is always the same. Of two ideal
    rooflines the ends are the ratios at full and at no overlap.

    Args:
        estimate: the numerator.
        baseline: the denominator; priced by the same kind of calibration.
        quantity: `time_s`, `ttft_s`, `tpot_s`, or `prefill_s`: prefill and a method's own work, no tower.

    Raises:
        UnknownNameError: another quantity.

    >>> from costmodel import estimate
    >>> full, half = (estimate("llava-1.5-7b", "a100", visual_tokens=n) for n in (576, 288))
    >>> ratio = ratio_interval(half, full, "ttft_s")
    >>> 0.5 < ratio.low < ratio.value < ratio.high < 0.8
    True
    """
    if quantity not in QUANTITIES:
        raise UnknownNameError(quantity, QUANTITIES, "quantity")
    value = _predicted(estimate, quantity) / _predicted(baseline, quantity)
    drawn = _drawn(estimate, quantity) / _drawn(baseline, quantity)
    low, high = np.quantile(drawn, [0.05, 0.95])
    return Ratio(value, min(float(low), value), max(float(high), value))


def _predicted(estimate: Estimate, quantity: str) -> float:
    if quantity == "prefill_s":
        return sum(
            float(estimate.stages[name].time_s) for name in _PREFILL if name in estimate.stages
        )
    return float(getattr(estimate.totals, quantity) or 0.0) or float("nan")


def _drawn(estimate: Estimate, quantity: str) -> Any:
    """Return what a quantity may be, shape (draws,)."""
    names = [name for name in estimate.stages if (name == "decode") != (quantity == "ttft_s")]
    if quantity == "time_s":
        names = list(estimate.stages)
    elif quantity == "prefill_s":
        names = [name for name in _PREFILL if name in estimate.stages]
    steps = estimate.inputs["output_tokens"] if quantity == "tpot_s" else 1
    source = estimate.source
    if source is None or source.calibration is None:
        costs = [estimate.stages[name] for name in names]
        ends = [sum(cost.time_s for cost in costs), sum(cost.time_high_s for cost in costs)]
        return np.array([float(end) for end in ends]) / steps
    device = dict.fromkeys(names, np.zeros(DRAWS))
    for row in estimate.ops:
        if row.stage not in device or not row.time_s:
            continue
        if source.network is not None and row.op_class in COLLECTIVES:
            spent = row.time_s * source.network.factors(_scores((LINK,)))
        else:
            pricer = source.calibration.pricer(str(row.op_class), str(row.dtype))
            alike = (pricer.key, row.executed_flops / row.count, row.hbm_bytes / row.count)
            share = shared_share(pricer.key)
            z = share**0.5 * _scores(pricer.key)
            if share < 1:
                z = z + (1 - share) ** 0.5 * _scores(alike)
            spent = row.time_s * np.exp(_log_ratios(pricer.found, z, row))
        device[row.stage] = device[row.stage] + spent
    if source.calibration.kind == "shipped":
        factor = np.exp(SOURCE_MIDDLE + SOURCE_SPREAD * _scores("source"))
        device = {name: time * factor for name, time in device.items()}
    whole = np.zeros(DRAWS)
    if REQUEST in names:
        whole = whole + estimate.stages[REQUEST].time_s
    for name in names:
        whole = whole + _with_host(estimate, name, device[name])
    return whole / steps


def _with_host(estimate: Estimate, stage: str, device_s: Any) -> Any:
    source, cost = estimate.source, estimate.stages[stage]
    if source is None or source.host is None or not cost.kernels:
        return device_s
    host = source.host
    # Log-normal on either side of the median, as far as its 90 % ends say.
    z = _scores((HOST,)) / NormalDist().inv_cdf(0.95)
    below, above = (
        np.log(end / host.per_kernel_s) if end > 0 and host.per_kernel_s > 0 else 0.0
        for end in (host.low_s, host.high_s)
    )
    launch = cost.kernels * host.per_kernel_s * np.exp(np.where(z < 0, -z * below, z * above))
    launch = launch + host.wait_s
    return device_s + launch if source.own_host else np.maximum(device_s, launch)


def _scores(key: Any) -> Any:
    """Return standard normal scores that belong to a key: always the same, in an order of its own."""
    return np.random.default_rng(crc32(repr(key).encode())).permutation(_Z)


def _log_ratios(found: ClassParameters, z: Any, row: OpRow) -> Any:
    """Return an op's ln(measured / predicted) at normal scores, between its class's quantiles."""
    at = [NormalDist().inv_cdf(level) for level, _ in found.quantiles]
    ratios = np.interp(z, at, [ratio for _, ratio in found.quantiles])
    if not found.growth:
        return ratios
    # The op's interval says how far its errors spread; where it was cut off at its time, the other end does.
    middle = found.log_ratio(0.5)
    ends = ((0.05, row.time_low_s), (0.95, row.time_high_s))
    beside = [(found.log_ratio(level) - middle, end) for level, end in ends]
    spread = min(
        ((np.log(end / row.time_s) - middle) / width for width, end in beside if width), default=1.0
    )
    return middle + spread * (ratios - middle)
