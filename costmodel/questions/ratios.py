"""The ratio of two predicted times, with its interval: what both runs get wrong alike cancels.

Errors add up as in `costmodel.uncertainty`: the ops of a class err alike, classes apart. A class that is
predicted 10 % too fast is so in both runs, so only the difference of what it holds of either moves the
ratio R = N / D of the times N and D, to the first order:

    (dR / R)^2 = sum over classes of (half_width_N / N - half_width_D / D)^2

in either direction on its own. What is each op's own is taken as one more class: it is the same op at another
length. Without a calibration the half-widths are the bracket of the roofline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from costmodel.quantities import STAGES
from costmodel.uncertainty import NOTHING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from costmodel.result import Estimate

#: Stages before the first token.
FIRST_TOKEN = STAGES[:-1]
_NOTHING = (0.0, 0.0)


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
    (top, above), (bottom, below) = _widths(one, stages), _widths(other, stages)
    if not bottom:
        return None
    down = up = 0.0
    for key in above.keys() | below.keys():
        less, more = above.get(key, _NOTHING)
        less_below, more_below = below.get(key, _NOTHING)
        moves = (
            more / top - more_below / bottom if top else 0.0,
            less_below / bottom - less / top if top else 0.0,
        )
        up += max(0.0, *moves) ** 2
        down += min(0.0, *moves) ** 2
    value = top / bottom
    return Ratio(float(value), float(value * max(0.0, 1 - down**0.5)), float(value * (1 + up**0.5)))


def _widths(
    cost: Estimate, stages: tuple[str, ...]
) -> tuple[float, dict[Any, tuple[float, float]]]:
    """Return the seconds, and of each class its half-widths below and above."""
    errors = NOTHING
    for name in stages:
        held = cost.stages[name].errors
        errors = errors if held is None else errors.plus(held)
    found: dict[Any, tuple[float, float]] = {
        key: (float(part.down_s), float(part.up_s)) for key, part in errors.parts.items()
    }
    found["own"] = (float(errors.own_down2) ** 0.5, float(errors.own_up2) ** 0.5)
    return float(sum(cost.stages[name].time_s for name in stages)), found
