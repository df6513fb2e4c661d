"""How far off a time may be: the errors of single ops, added up to stages, totals and ratios.

An op's error e = ln(measured / predicted) has the quantiles that its class showed on points its fit did
not see. Errors of one class are alike: a bandwidth that is fitted 5 % too high makes all its ops 5 % too
fast. So, with z standard normal,

    e_i = Q_class(Phi(sqrt(r) z_class + sqrt(1 - r) z_i))

with z_class shared by all ops of a class, and z_i of the op alone (the repeats of a layer are one op).
r is `SHARED` for measured classes, and 1 for transferred and assumed ones, whose whole error is one
wrong parameter. The host's seconds per kernel are a class of their own.

A sum's interval follows in closed form: half-widths at 5 and 95 % add up within a class, in squares
between classes and for what is each op's own. Of a ratio the errors of both sides are the same wherever
they run the same class, and the same op: `costmodel.ratios.ratio_interval` draws them together.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hardware_specs.showing import brief

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


#: Share of the variance of a measured class's errors that its ops have in common. At 0.1 the 90 % intervals
#: of sums of seven products at one row count, on public A100 and H100 tables, cover 90 % of them (FP8 alone
#: 75 %, whose serving kernels err alike).
SHARED = 0.1

#: Op class, dtype, and how its parameters are known.
ClassKey = tuple[str, str, str]
#: A class's median ratio of measured to predicted, and how far the 90 % ends lie below and above it.
Widths = tuple[float, float, float]


class Part(NamedTuple):
    """What one class contributes: seconds, and the half-widths that its ops share."""

    time_s: Any
    down_s: Any
    up_s: Any


class Errors(NamedTuple):
    """The uncertainty of a sum of times; every number may be an array over scenarios.

    Attributes:
        middle_s: median of the sum.
        parts: by class.
        own_down2: sum of squared half-widths downwards that are each op's own, s^2.
        own_up2: the same upwards.
    """

    middle_s: Any
    parts: dict[ClassKey, Part]
    own_down2: Any = 0.0
    own_up2: Any = 0.0

    def __repr__(self) -> str:
        """Return the fields that are set, as far as they fit."""
        return brief(self)

    def plus(self, other: Errors) -> Errors:
        """Return the uncertainty of both sums together."""
        return joined((self, other))

    def mapped(self, change: Callable[[Any], Any]) -> Errors:
        """Return the numbers of other scenarios, as an index or a mask gives them."""
        parts = {key: Part(*map(change, part)) for key, part in self.parts.items()}
        return Errors(change(self.middle_s), parts, change(self.own_down2), change(self.own_up2))

    def interval(self, time_s: Any) -> tuple[Any, Any]:
        """Return the ends of the 90 % interval, the prediction inside."""
        down2, up2 = self.own_down2, self.own_up2
        for _, down, up in self.parts.values():
            down2 = down2 + down * down
            up2 = up2 + up * up
        low, high = self.middle_s - down2**0.5, self.middle_s + up2**0.5
        if isinstance(low, np.ndarray) or isinstance(time_s, np.ndarray):
            return np.minimum(low, time_s), np.maximum(high, time_s)
        return min(low, time_s), max(high, time_s)

    def shares(self) -> dict[str, Any]:
        """Return the share of the time that rests on measured, transferred and assumed parameters."""
        sums: dict[str, Any] = dict.fromkeys(("measured", "transferred", "assumed"), 0.0)
        for (_, _, standing), part in self.parts.items():
            sums[standing] = sums[standing] + part.time_s
        whole = sum(sums.values())
        if isinstance(whole, np.ndarray):
            return {name: time / np.where(whole > 0, whole, 1.0) for name, time in sums.items()}
        return {name: float(time / whole) if whole else 0.0 for name, time in sums.items()}


#: The uncertainty of what takes no time.
NOTHING = Errors(0.0, {})


def joined(every: Sequence[Errors]) -> Errors:
    """Return the uncertainty of sums together."""
    some = [each for each in every if each.parts]
    if len(some) < 2:
        return some[0] if some else NOTHING
    middle, first, down2, up2 = some[0]
    parts = dict(first)
    for more, others, more_down2, more_up2 in some[1:]:
        middle, down2, up2 = middle + more, down2 + more_down2, up2 + more_up2
        for key, part in others.items():
            parts[key] = _with(parts[key], part) if key in parts else part
    return Errors(middle, parts, down2, up2)


def _with(held: Part, part: Part) -> Part:
    (time, down, up), (more_time, more_down, more_up) = held, part
    return Part(time + more_time, down + more_down, up + more_up)


#: Measured over predicted of other people's measurements of the same device: median and standard deviation of
#: the logarithm over 18 public sources, beyond what one table shows. It is one factor on all device times.
SOURCE_MIDDLE, SOURCE_SPREAD = 0.05, 0.09
_SOURCE: ClassKey = ("source", "", "measured")
_SOURCE_SCALE = math.exp(SOURCE_MIDDLE)
_SOURCE_DOWN, _SOURCE_UP = (abs(math.exp(z * SOURCE_SPREAD) - 1) for z in (-1.645, 1.645))
#: The ideal roofline's bracket is certain: its ends add up.
BRACKET: ClassKey = ("roofline", "", "assumed")
HOST = "host"


def errors_of(
    times: Iterable[tuple[ClassKey, Widths, Any, Any, Any]], across: bool = False
) -> Errors:
    """Return the uncertainty of a sum of ops.

    Args:
        times: of each class its key, its widths, the sum of its ops' times, of these times the spread of each
            op's errors (1 where all err alike), and of the squares of the latter.
        across: whether other people's measurements shall lie inside as well, as of a shipped table, which
            is one source of many: sigma^2 = sigma_table^2 + 0.09^2, around exp(0.05) of what it says.
    """
    scale = _SOURCE_SCALE if across else 1.0
    middle: Any = 0.0
    down2: Any = 0.0
    up2: Any = 0.0
    parts: dict[ClassKey, Part] = {}
    for key, (centre, down, up), whole, wide, squares in times:
        share = shared_share(key)
        centre, down, up = centre * scale, down * scale, up * scale
        middle = middle + whole * centre
        part = Part(whole, wide * (down * share**0.5), wide * (up * share**0.5))
        parts[key] = _with(parts[key], part) if key in parts else part
        if share < 1.0:
            down2 = down2 + squares * (down * down * (1 - share))
            up2 = up2 + squares * (up * up * (1 - share))
    if across:
        parts[_SOURCE] = Part(0.0, middle * _SOURCE_DOWN, middle * _SOURCE_UP)
    return Errors(middle, parts, down2, up2)


def shared_share(key: ClassKey) -> float:
    """Return r, the share of the variance of a class's errors that its ops have in common."""
    return SHARED if key[2] == "measured" else 1.0


class Host(NamedTuple):
    """What the host costs: seconds per kernel, and waiting once per stage, each with its 90 % ends."""

    per_kernel_s: float
    low_s: float
    high_s: float
    wait_s: float
    wait_low_s: float
    wait_high_s: float
    standing: str

    def lasts(self, device_s: Any, kernels: Any, adds: bool) -> tuple[Any, Any]:
        """Return a stage's time and its host's part of it; arguments as of `launched`."""
        host = kernels * self.per_kernel_s + self.wait_s * (kernels > 0)
        if adds:
            return device_s + host, host
        arrays = isinstance(host, np.ndarray) or isinstance(device_s, np.ndarray)
        largest: Any = np.maximum if arrays else max
        return largest(device_s, host), host

    def launched(
        self, device_s: Any, kernels: Any, errors: Errors, adds: bool
    ) -> tuple[Any, Any, Errors]:
        """Return a stage's time, its host's part of it, and the uncertainty.

        Args:
            device_s: the device's time.
            kernels: how many are launched; where none is, nobody waits.
            errors: of the device's time.
            adds: whether the host is the device itself, so that the two times add up; else the
                longer one is the stage's.
        """
        runs = kernels > 0
        time, host = self.lasts(device_s, kernels, adds)
        low = kernels * self.low_s + self.wait_low_s * runs
        high = kernels * self.high_s + self.wait_high_s * runs
        key = (HOST, "", self.standing)
        if adds:
            alone = Errors(host, {key: Part(host, host - low, high - host)})
            return time, host, errors.plus(alone)
        arrays = isinstance(host, np.ndarray) or isinstance(device_s, np.ndarray)
        largest: Any = np.maximum if arrays else max
        device_low, device_high = errors.interval(errors.middle_s)
        middle = largest(errors.middle_s, host)
        # At either end of the interval the longer one says how far it reaches, and errs alike.
        down = middle - largest(device_low, low)
        up = largest(device_high, high) - middle
        by_host_down = (low >= device_low) | (device_low >= errors.middle_s)
        by_host_up = (high >= device_high) | (device_high <= errors.middle_s)
        holds = host > device_s
        scale_down = _ratio(down, errors.middle_s - device_low) * (1 - by_host_down)
        scale_up = _ratio(up, device_high - errors.middle_s) * (1 - by_host_up)
        parts = {
            name: Part(part.time_s * (1 - holds), part.down_s * scale_down, part.up_s * scale_up)
            for name, part in errors.parts.items()
        }
        parts[key] = Part(host * holds, down * by_host_down, up * by_host_up)
        found = Errors(
            middle, parts, errors.own_down2 * scale_down**2, errors.own_up2 * scale_up**2
        )
        return time, host, found


def _ratio(one: Any, two: Any) -> Any:
    if isinstance(two, np.ndarray):
        return one / np.where(two > 0, two, 1.0)
    return one / two if two > 0 else 0.0
