"""The parts of a calibration: numbers with intervals and provenance."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.calibration.intervals import spread_at
from hardware_specs.errors import CalibrationError
from hardware_specs.showing import brief

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costmodel.calibration.residual import Residual

#: How a provenance begins that speaks of another dtype, class or device.
TRANSFERRED = "transferred"

#: A parameter of products: what runs of whole models reach of the arithmetic that their table shows one by
#: one. Another source says so; predictions of models use it, single ops do not.
MODEL_SHARE = "model_share"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One fitted or assumed number.

    Attributes:
        value: the number, in the unit that its name or the law's table states.
        low: lower end of its 90 % interval; None where nothing is known about it.
        high: upper end.
    """

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class HeldOut:
    """How well a class predicted points that its fit never saw.

    Attributes:
        points: how many.
        mape: mean absolute percentage error, as a fraction.
        worst: largest absolute error, as a fraction.
        coverage: share of the points inside the 90 % prediction interval.
        how: which points were held out.
    """

    points: int
    mape: float
    worst: float
    coverage: float
    how: str

    @classmethod
    def of(cls, ratios: np.ndarray, coverage: float, how: str) -> HeldOut:
        """Return the errors behind ln(measured / predicted) of points, shape (points,)."""
        errors = np.abs(np.exp(-ratios) - 1)
        return cls(len(ratios), float(errors.mean()), float(errors.max()), coverage, how)


@dataclass(frozen=True, slots=True)
class ShapeCurve:
    """Measured corrections of the law for one weight matrix: log ratios at a few row counts.

    Between two knots the correction is linear in the logarithm of the law's time, so that it steps
    where the law steps; outside them it is constant.

    Attributes:
        n: output features.
        k: input features.
        rows: row counts m that were measured, ascending.
        log_ratios: ln(measured / law) at those rows.
    """

    n: int
    k: int
    rows: tuple[float, ...]
    log_ratios: tuple[float, ...]


@dataclass(frozen=True)
class ClassParameters:
    """The law's parameters of one op class in one dtype.

    Attributes:
        op_class: `gemm`, `attention_prefill`, ... (`costmodel.calibration.OP_CLASSES`).
        dtype: a canonical label, a key of `dtypes.LABELS`.
        parameters: by name; the laws document each with its unit.
        provenance: `fitted on 64 points of ...` or `assumed: ...`.
        points: measured points behind the fit; 0 for an assumption.
        quantiles: (level, ln(measured / predicted)) pairs of held-out points, ascending: what the
            prediction interval is read from.
        held_out: the errors behind those quantiles; None for an assumption.
        shapes: measured corrections of single weight matrices (model-specific tier).
        kernels: the kernel family, where the law knows several.
        residual: what the library's choice of kernels adds to the law of products; None adds nothing.
        growth: exponent with which errors of products grow as rows get fewer (`intervals.spread_at`).
    """

    op_class: str
    dtype: str
    parameters: Mapping[str, Parameter]
    provenance: str
    points: int = 0
    quantiles: tuple[tuple[float, float], ...] = ()
    held_out: HeldOut | None = None
    shapes: tuple[ShapeCurve, ...] = ()
    kernels: str = ""
    residual: Residual | None = None
    growth: float = 0.0
    values: Mapping[str, float] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Keep the bare values apart, since the laws read them millions of times."""
        object.__setattr__(self, "parameters", MappingProxyType(dict(self.parameters)))
        object.__setattr__(self, "values", {k: p.value for k, p in self.parameters.items()})

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild from plain data: read-only mappings cannot be pickled or copied."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.init}
        return partial(ClassParameters, **{**values, "parameters": dict(self.parameters)}), ()

    @property
    def measured(self) -> bool:
        """Whether the parameters were fitted to measurements."""
        return self.points > 0

    @property
    def standing(self) -> str:
        """`measured`, `transferred` (from another dtype, class or device) or `assumed`."""
        if self.measured:
            return "measured"
        # What is transferred from an assumption is one.
        text = self.provenance
        return TRANSFERRED if text.startswith(TRANSFERRED) and "assumed" not in text else "assumed"

    def transferred(self, why: str) -> ClassParameters:
        """Return the same parameters, marked as standing in for what was not measured."""
        return replace(self, provenance=f"{TRANSFERRED} from {why}; {self.provenance}", points=0)

    def doubted(self) -> ClassParameters:
        """Return the same parameters, twice as uncertain, for what they stand in for."""
        wider = tuple((level, 2 * ratio) for level, ratio in self.quantiles)
        return replace(self, quantiles=wider, held_out=None)

    def interval(self, level: float = 0.9, rows: Any = None) -> tuple[Any, Any]:
        """Return what to multiply a prediction by to get its interval's ends.

        The interval is (exp q((1 - level) / 2), exp q((1 + level) / 2)) with q the quantiles of
        ln(measured / predicted) over held-out points, spread around their median as rows say.

        Args:
            level: probability that a measurement lies inside, in (0, 1).
            rows: of products, a number or an array; None is 1,024 and more, or another class.

        Raises:
            CalibrationError: the level is no probability.
        """
        if not 0 < level < 1:
            raise CalibrationError(f"an interval's level lies between 0 and 1, not at {level!r}")
        tail = (1 - level) / 2
        low, middle, high = (self.log_ratio(each) for each in (tail, 0.5, 1 - tail))
        if rows is None or not self.growth:
            return math.exp(low), math.exp(high)
        spread = spread_at(rows, self.growth)
        exp: Any = np.exp if isinstance(spread, np.ndarray) else math.exp
        return exp(middle + spread * (low - middle)), exp(middle + spread * (high - middle))

    def log_ratio(self, level: float) -> float:
        """Return the quantile of ln(measured / predicted) at a level.

        The stored quantiles are interpolated; beyond the outermost, extrapolated linearly.
        """
        pairs = self.quantiles
        upper = next((i for i, (x, _) in enumerate(pairs) if x >= level), len(pairs) - 1)
        upper = max(upper, 1)
        (x0, y0), (x1, y1) = pairs[upper - 1], pairs[upper]
        return y0 + (y1 - y0) * (level - x0) / (x1 - x0)


@dataclass(frozen=True, slots=True)
class Device:
    """The datasheet numbers that efficiencies refer to.

    Attributes:
        peaks: dense matrix peaks by dtype label, FLOP/s.
        vector_flop_per_s: FP32 peak outside the matrix units, FLOP/s; None where none is published.
        bandwidth_bytes_per_s: memory bandwidth, B/s.
        units: SMs, compute units or cores that tiles are spread over.
        l2_bytes: the last cache before memory, B; 0 where none is known.
    """

    peaks: Mapping[str, float]
    vector_flop_per_s: float | None
    bandwidth_bytes_per_s: float
    units: int
    l2_bytes: float

    __repr__ = brief
