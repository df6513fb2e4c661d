"""Robust regression of a law's parameters on measured times.

Minimised over z, the parameters' logarithms in units of their priors' spread:

    sum rho((ln t(z) - ln t_measured) / SCALE) + |z|^2,    rho(x) = 2 (sqrt(1 + x^2) - 1)

Logarithms weigh a microsecond and a millisecond alike; rho grows linearly for outliers, so that one
interrupted measurement bends nothing; |z|^2 is the prior.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.calibration.attention import attention_time_s
from costmodel.calibration.classes import kind_of_class, peak_of
from costmodel.calibration.dtypes import LABELS
from costmodel.calibration.gemm import TileLaw, gemm_time_s
from costmodel.calibration.law import StreamLaw
from costmodel.calibration.priors import Prior, priors_of
from hardware_specs.errors import MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from costmodel.calibration.parameters import Device
    from costmodel.calibration.tables import Group

#: Relative deviation from which a point counts as an outlier rather than as noise.
SCALE = 0.06
#: Step of the numerical derivative, in spreads of the priors: wide enough to see past the kinks that
#: the choice among tiles makes.
STEP = 0.03
#: Operand bandwidths, over the memory's, that a fit starts from: each lies in a valley of its own.
STARTS = (4.0, 8.0, 16.0)
_VALLEYS = "cache_bandwidth_ratio"
#: Weight matrices from which on whole ones are left out of a fit.
LEAST_MATRICES = 3
#: Relative change of the sum below which a fit has arrived.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Law:
    """The law of one op class in one dtype and kernel family on one device.

    Attributes:
        op_class: the class.
        dtype: a canonical label.
        family: a kernel family.
        device: peaks, bandwidth, SMs.
        priors: of the parameters that are fitted.
        fixed: parameters held at a value, as when a term is switched off to see what it buys.
        warm: whether weights that a benchmark's few copies leave in the last cache come from there.
    """

    op_class: str
    dtype: str
    family: str
    device: Device
    priors: Mapping[str, Prior]
    fixed: Mapping[str, float] = field(default_factory=dict)
    warm: bool = False

    def time_s(self, values: Mapping[str, float], sizes: Mapping[str, Any]) -> Any:
        """Return the law's seconds at arrays of sizes."""
        kind = kind_of_class(self.op_class)
        if kind == "stream":
            return StreamLaw.of(values, self.device).time_s(sizes["bytes"], sizes["flops"])
        peak = peak_of(self.device, self.dtype)
        assert peak is not None  # noqa: S101 - `checks.usable` refused the group otherwise
        if kind == "gemm":
            if not self.warm:
                sizes = {name: each for name, each in sizes.items() if name != "copies"}
            law = TileLaw(values, self.device, self.family, self.dtype, peak)
            return gemm_time_s(law, **sizes)
        element = LABELS[self.dtype].output_bytes
        return attention_time_s(values, self.device, self.family, element, peak, **sizes)


#: What few points of an attention class still determine, and all that a stream of bytes does.
_FEW = ("compute_efficiency", "memory_efficiency", "overhead_s")
_STREAM = ("memory_efficiency", "overhead_s", "l2_bandwidth_ratio")


def law_of(op_class: str, dtype: str, family: str, device: Device, few: bool = False) -> Law:
    """Return the law with its usual priors.

    Args:
        op_class: the class.
        dtype: a canonical label.
        family: a kernel family.
        device: peaks, bandwidth, SMs.
        few: whether only efficiencies and overhead are fitted, the rest held at the priors' medians;
            of a stream only bandwidths and overhead ever are.
    """
    priors = priors_of(op_class, dtype, family)
    free = _STREAM if kind_of_class(op_class) == "stream" else _FEW if few else tuple(priors)
    fixed = {name: prior.median for name, prior in priors.items() if name not in free}
    return Law(op_class, dtype, family, device, {name: priors[name] for name in free}, fixed)


def fit(
    law: Law, group: Group, start: Mapping[str, float] | None = None, evaluations: int = 60
) -> dict[str, float]:
    """Return the parameters that fit a group of points best.

    Args:
        law: the law and its priors.
        group: the points.
        start: where to start; None starts at the priors' medians.
        evaluations: most evaluations of the law.

    Raises:
        MissingDependencyError: scipy is not installed.
    """
    try:
        from scipy.optimize import least_squares
    except ImportError:
        raise MissingDependencyError("scipy", "analysis") from None
    names = list(law.priors)
    priors = [law.priors[name] for name in names]
    middle = np.log([p.median for p in priors])
    spread = np.array([p.spread for p in priors])
    low = (np.log([p.low for p in priors]) - middle) / spread
    high = (np.log([p.high for p in priors]) - middle) / spread
    target = np.log(group.time_s)

    def values(z: Any) -> dict[str, float]:
        found = dict(zip(names, np.exp(middle + spread * z).tolist(), strict=True))
        return found | dict(law.fixed)

    def residuals(z: Any) -> Any:
        deviation = (np.log(law.time_s(values(z), group.sizes)) - target) / SCALE
        return np.concatenate([deviation, z])

    def slopes(z: Any) -> Any:
        base = residuals(z)
        columns = []
        for i in range(len(z)):
            step = STEP if z[i] + STEP < high[i] else -STEP
            moved = z.copy()
            moved[i] += step
            columns.append((residuals(moved) - base) / step)
        return np.stack(columns, axis=1)

    def arrived(first: Any, most: int) -> Any:
        inside = 1e-6
        return least_squares(
            residuals,
            np.clip(first, low + inside, high - inside),
            jac=slopes,
            bounds=(low, high),
            loss="soft_l1",
            ftol=TOLERANCE,
            max_nfev=most,
        )

    if start is not None:
        first = (np.log([start[name] for name in names]) - middle) / spread
        return values(arrived(first, evaluations).x)
    first = np.zeros(len(names))
    if _VALLEYS not in names:
        return values(arrived(first, evaluations).x)
    # Operands that come too slowly and tiles that compute too badly look alike: a fit that starts on
    # the wrong side stays there.
    tried = []
    for ratio in STARTS:
        first[names.index(_VALLEYS)] = (
            np.log(ratio / law.priors[_VALLEYS].median) / law.priors[_VALLEYS].spread
        )
        tried.append(arrived(first, evaluations))
    return values(min(tried, key=lambda found: float(found.cost)).x)


def row_folds(group: Group, number: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return index arrays that share a group's points out evenly at random."""
    return np.array_split(rng.permutation(len(group)), min(number, len(group)))


def matrix_folds(group: Group, number: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return index arrays that share the products out by weight matrix, each in one of them.

    Rows of one matrix resemble each other, so that only whole matrices left out show how others are
    predicted. Fewer than three matrices are shared out by rows.
    """
    pairs = np.column_stack([group.sizes["n"], group.sizes["k"]])
    matrices, place = np.unique(pairs, axis=0, return_inverse=True)
    if len(matrices) < LEAST_MATRICES:
        return row_folds(group, number, rng)
    parts = np.array_split(rng.permutation(len(matrices)), min(number, len(matrices)))
    return [np.flatnonzero(np.isin(place.ravel(), part)) for part in parts]


def out_of_fold(
    group: Group, parts: list[np.ndarray], predictor: Callable[[Group], Callable[[Group], Any]]
) -> np.ndarray:
    """Return ln(measured / predicted) of every point, predicted without its fold."""
    ratios = np.empty(len(group))
    for part in parts:
        kept = np.ones(len(group), dtype=bool)
        kept[part] = False
        held = group.take(part)
        ratios[part] = np.log(held.time_s / predictor(group.take(kept))(held))
    return ratios


def bootstrap(
    law: Law, group: Group, values: Mapping[str, float], samples: int, rng: np.random.Generator
) -> dict[str, tuple[float, float]]:
    """Return the 90 % interval of every parameter over resampled points."""
    drawn = [
        fit(law, group.take(rng.integers(0, len(group), len(group))), values, evaluations=15)
        for _ in range(samples)
    ]
    intervals = {}
    for name in law.priors:
        value = values[name]
        low, high = np.quantile([each[name] for each in drawn], [0.05, 0.95])
        # Few resamples may all lie on one side of the fit, which is inside by definition.
        intervals[name] = (min(float(low), value), max(float(high), value))
    return intervals
