"""The ratio of two predicted times, with its interval: what both runs get wrong alike cancels.

The error of a predicted time is shared by op class and dtype: where the law is 10 % too fast for products
in FP16 it is so in both runs. So a class moves the numerator by its half-width over the numerator's
time, and the denominator likewise; only the difference moves the ratio. Classes err independently:

    (dR / R)^2 = sum over classes of (half_width_num / num - half_width_den / den)^2

in either direction on its own. Without a calibration the half-width is the bracket of the roofline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from costmodel.quantities import STAGES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from costmodel.result import Estimate

#: Stages before the first token.
FIRST_TOKEN = STAGES[:-1]
_HOST = ("host", "")


class Ratio(NamedTuple):
    """A ratio to the unreduced run, and its 90 % interval (the bracket without a calibration)."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Return the fields by name."""
        return self._asdict()


def time_ratio(one: Estimate, other: Estimate, stages: Iterable[str] = STAGES) -> Ratio | None:
    """Return the ratio of two requests' times over some stages; None where the other takes none.

    >>> from costmodel import estimate
    >>> one = estimate("llava-1.5-7b", "nvidia-l4", method="fastv", keep=64)
    >>> time_ratio(one, one)
    Ratio(value=1.0, low=1.0, high=1.0)
    """
    stages = tuple(stages)
    above, below = _widths(one, stages), _widths(other, stages)
    top = sum(part[0] for part in above.values())
    bottom = sum(part[0] for part in below.values())
    if not bottom:
        return None
    down = up = 0.0
    nothing = (0.0, 0.0, 0.0)
    for key in above.keys() | below.keys():
        _, less, more = above.get(key, nothing)
        _, less_below, more_below = below.get(key, nothing)
        moves = (
            more / top - more_below / bottom if top else 0.0,
            less_below / bottom - less / top if top else 0.0,
        )
        up += max(0.0, *moves) ** 2
        down += min(0.0, *moves) ** 2
    value = top / bottom
    return Ratio(float(value), float(value * max(0.0, 1 - down**0.5)), float(value * (1 + up**0.5)))


def _widths(cost: Estimate, stages: tuple[str, ...]) -> dict[tuple[str, str], list[float]]:
    """Return seconds, and the half-widths below and above, by op class and dtype."""
    found: dict[tuple[str, str], list[float]] = {}
    host_bound = {name for name in stages if cost.stages[name].bound == "host"}
    for name in host_bound:
        stage = cost.stages[name]
        _add(found, _HOST, stage.time_s, stage.time_low_s, stage.time_high_s)
    device = dict.fromkeys(stages, 0.0)
    for row in cost.ops:
        if row.stage in device and row.stage not in host_bound:
            device[row.stage] += row.time_s
            key = (str(row.op_class), str(row.dtype))
            _add(found, key, row.time_s, row.time_low_s, row.time_high_s)
    for name in device.keys() - host_bound:
        # A processor that is its own host launches beside computing.
        rest = cost.stages[name].time_s - device[name]
        if rest > 1e-9 * device[name]:
            _add(found, _HOST, rest, rest, rest)
    return found


def _add(
    found: dict[tuple[str, str], list[float]], key: tuple[str, str], time: Any, low: Any, high: Any
) -> None:
    held = found.setdefault(key, [0.0, 0.0, 0.0])
    for place, value in enumerate((time, time - low, high - time)):
        held[place] += float(value)
