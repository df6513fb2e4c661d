"""The JSON document of a calibration, schema version 1, checked at the boundary.

History: 1, the first.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from costmodel.calibration.attention import FAMILIES as ATTENTION_FAMILIES
from costmodel.calibration.dtypes import LABELS
from costmodel.calibration.gemm import FAMILIES as GEMM_FAMILIES
from costmodel.calibration.parameters import MODEL_SHARE
from costmodel.calibration.priors import DECODE, QUANTISING, priors_of
from costmodel.calibration.residual import MOST_POINTS

#: Kernel families by the first word of an op class; streams have none.
_FAMILIES = {
    "gemm": tuple(GEMM_FAMILIES),
    "conv": tuple(GEMM_FAMILIES),
    "attention": tuple(ATTENTION_FAMILIES),
}
#: Parameters that count as nothing where a class lacks them.
_OPTIONAL = QUANTISING.keys() | DECODE.keys() | {"score_cost", "l2_bandwidth_ratio"}

#: Bounds within which the law has a time; the fits' own bounds (`priors`) are narrower. A share of a
#: peak above 1 would run faster than the device.
_LIMITS = {
    "compute_efficiency": (1e-6, 1.0),
    MODEL_SHARE: (0.1, 1.0),
    "memory_efficiency": (1e-6, 1.0),
    "exponent": (1.0, 1e6),
    "cache_bandwidth_ratio": (1e-3, 1e4),
    "l2_bandwidth_ratio": (0.0, 1e4),
    "tail_overlap": (0.0, 1.0),
    "small_tile_loss": (0.0, 4.0),
    "ragged_cost": (1.0, 100.0),
    "epilogue_cost": (0.0, 1e4),
    "quantise_cost": (0.0, 1e4),
    "score_cost": (0.0, 1e6),
}
#: Parameters in seconds: a kernel's share that takes longer is a wrong unit.
_MOST_SECONDS = 1.0
#: A logarithm of measured over predicted beyond this is no measurement.
_MOST_LOG_RATIO = 20.0

_Ratio = Annotated[float, Field(ge=-_MOST_LOG_RATIO, le=_MOST_LOG_RATIO)]
#: FLOP/s or B/s; below a thousand it is given in another unit.
_Rate = Annotated[float, Field(ge=1e3, le=1e24)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NumberDocument(_Strict):
    """A number with its 90 % interval."""

    value: _NotNegative
    low: _NotNegative | None = None
    high: _NotNegative | None = None

    @model_validator(mode="after")
    def _ordered(self) -> NumberDocument:
        low = self.value if self.low is None else self.low
        high = self.value if self.high is None else self.high
        if low > high:
            raise ValueError(f"the interval's low end {low} lies above its high end {high}")
        return self


class SourcedDocument(NumberDocument):
    """A number with its interval and the sentence that says where it comes from."""

    provenance: str = Field(min_length=1)


class DeviceDocument(_Strict):
    """The datasheet numbers that efficiencies refer to."""

    peaks_flop_per_s: dict[str, _Rate]
    vector_flop_per_s: _Rate | None
    bandwidth_bytes_per_s: _Rate
    units: Annotated[int, Field(gt=0, le=10_000_000)]
    l2_bytes: Annotated[float, Field(ge=0, le=1e15)]


class HeldOutDocument(_Strict):
    """The errors on points that the fit never saw."""

    points: Annotated[int, Field(gt=0)]
    mape: _NotNegative
    worst: _NotNegative
    coverage: Annotated[float, Field(ge=0, le=1)]
    how: str


class ShapeDocument(_Strict):
    """A weight matrix's measured corrections."""

    n: Annotated[int, Field(gt=0)]
    k: Annotated[int, Field(gt=0)]
    rows: list[_Positive] = Field(min_length=1)
    log_ratios: list[_Ratio]

    @model_validator(mode="after")
    def _aligned(self) -> ShapeDocument:
        if len(self.rows) != len(self.log_ratios):
            raise ValueError("rows and log_ratios differ in length")
        if any(a >= b for a, b in zip(self.rows, self.rows[1:], strict=False)):
            raise ValueError("rows do not ascend")
        return self


class ResidualDocument(_Strict):
    """What the library's choice of kernels adds: products and their weights."""

    m: list[_Positive] = Field(min_length=1, max_length=MOST_POINTS)
    n: list[_Positive]
    k: list[_Positive]
    weights: list[_Ratio]

    @model_validator(mode="after")
    def _aligned(self) -> ResidualDocument:
        if len({len(each) for each in (self.m, self.n, self.k, self.weights)}) > 1:
            raise ValueError("m, n, k and weights differ in length")
        return self


class ClassDocument(_Strict):
    """One op class in one dtype."""

    op_class: str = Field(min_length=1)
    dtype: str
    provenance: str = Field(min_length=1)
    points: Annotated[int, Field(ge=0)]
    kernels: str = ""
    parameters: dict[str, NumberDocument]
    quantiles: list[tuple[Annotated[float, Field(gt=0, lt=1)], _Ratio]] = Field(min_length=2)
    held_out: HeldOutDocument | None = None
    shapes: list[ShapeDocument] = []
    residual: ResidualDocument | None = None
    growth: Annotated[float, Field(ge=0, le=1)] = 0.0

    @model_validator(mode="after")
    def _sound(self) -> ClassDocument:
        if self.dtype not in LABELS:
            raise ValueError(f"unknown dtype {self.dtype!r}; there is: {', '.join(LABELS)}")
        needed = {"compute_efficiency", "memory_efficiency", "overhead_s", "exponent"}
        missing = needed - self.parameters.keys()
        known = _FAMILIES.get(self.op_class.partition("_")[0], ("",))
        if self.kernels not in known:
            raise ValueError(
                f"{self.op_class} has no kernels {self.kernels!r}; there is: {', '.join(known)}"
            )
        priors = priors_of(self.op_class, self.dtype, self.kernels)
        missing |= priors.keys() - _OPTIONAL - self.parameters.keys()
        if missing:
            raise ValueError(f"{self.op_class} in {self.dtype} lacks {', '.join(sorted(missing))}")
        for name, parameter in self.parameters.items():
            low, high = _LIMITS.get(name, (0.0, _MOST_SECONDS))
            if not low <= parameter.value <= high:
                raise ValueError(f"{name} must lie between {low:g} and {high:g}")
        for (x0, y0), (x1, y1) in zip(self.quantiles, self.quantiles[1:], strict=False):
            if x0 >= x1 or y0 > y1:
                raise ValueError("quantiles do not ascend")
        return self


class CalibrationDocument(_Strict):
    """A whole calibration."""

    schema_version: Literal[1]
    hardware_id: str
    device_name: str
    software: str
    date: str
    attribution: str = ""
    device: DeviceDocument | None
    host_s_per_kernel: SourcedDocument
    host_sync_s: SourcedDocument
    l2_bandwidth_ratio: SourcedDocument
    classes: list[ClassDocument] = Field(min_length=1)
    warnings: list[str] = []
