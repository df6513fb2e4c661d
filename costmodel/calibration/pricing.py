"""`Pricer`: one op class in one dtype under a calibration, ready to price many sizes.

Which parameters answer, which peak they refer to and what measured curves correct is looked up once;
then an estimate asks for single sizes and a sweep for arrays.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.calibration.alignment import alignment_cost
from costmodel.calibration.attention import attention_time_s
from costmodel.calibration.classes import kind_of_class, peak_of
from costmodel.calibration.curves import Knots
from costmodel.calibration.dtypes import LABELS, canonical
from costmodel.calibration.gemm import FAMILIES, Finish, TileLaw, gemm_time_s, tiled_s
from costmodel.calibration.law import StreamLaw
from costmodel.calibration.parameters import MODEL_SHARE
from costmodel.calibration.residual import ResidualSteps
from costmodel.calibration.stairs import Stairs
from hardware_specs.errors import CalibrationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from costmodel.calibration.parameters import ClassParameters, Device

    #: The law by rows, a measured curve, and the residual by rows.
    _Matrix = tuple[Callable[[Any], Any], Knots | None, ResidualSteps | None]

#: Weight matrices that are kept as tables; a model has a dozen.
MOST_TABLES = 512


class Pricer:
    """The predicted seconds of one op class in one dtype.

    Attributes:
        found: those parameters.
        key: the class and dtype whose errors it shares, and how they are known.
        widths: the median of measured over predicted, and the distances of its 90 % ends from it.
        growth: how these distances grow as a product's rows get fewer (`intervals.spread_at`).

    Raises:
        CalibrationError: the device has no arithmetic of that dtype.
    """

    def __init__(
        self, op_class: str, dtype: str, found: ClassParameters, device: Device, alone: bool = False
    ) -> None:
        self.found, self._device = found, device
        self.key = (found.op_class, found.dtype, found.standing)
        low, middle, high = (math.exp(found.log_ratio(level)) for level in (0.05, 0.5, 0.95))
        self.widths = middle, middle - low, high - middle
        self.growth = found.growth
        kind = kind_of_class(op_class)
        self._causal = op_class == "attention_prefill"
        if kind != "stream":
            self._peak = peak_of_dtype(canonical(dtype), device)
        self._tables: dict[tuple[float, float], _Matrix] = {}
        self._curves: dict[tuple[float, float], Knots] = {}
        self.time_s: Callable[..., Any]
        if kind == "stream":
            self.time_s = StreamLaw.of(found.values, device).time_s
        elif kind == "attention":
            self.time_s = self._attention
        else:
            self.time_s = self._gemm
            family = found.kernels or "library"
            share = 1.0 if alone else found.values.get(MODEL_SHARE, 1.0)
            values = found.values
            if share != 1.0:
                values = {**values, "compute_efficiency": share * values["compute_efficiency"]}
            self._law = TileLaw(values, device, family, found.dtype, self._peak)
            self._tiled = bool(FAMILIES[family].tiles)
            self._by_matrix = self._tiled or found.residual is not None
            self._read_curves()

    def _read_curves(self) -> None:
        found = self.found
        if not found.shapes:
            return
        # Curves are ratios to the law at the peak of the dtype that they were measured in.
        law = self._law._replace(peak=peak_of_dtype(found.dtype, self._device))
        for curve in found.shapes:
            rows = np.array(curve.rows)
            full = np.ones(len(rows))
            time = gemm_time_s(law, rows, full * curve.n, full * curve.k, full)
            self._curves[float(curve.n), float(curve.k)] = Knots(curve, time)

    def _attention(
        self,
        batch: Any,
        q_len: Any,
        kv_len: Any,
        heads: Any,
        kv_heads: Any,
        head_dim: Any,
        causal: Any = None,
    ) -> Any:
        element = LABELS[self.found.dtype].output_bytes
        return attention_time_s(
            self.found.values, self._device, self.found.kernels or "split-keys", element,
            self._peak, batch, q_len, kv_len, heads, kv_heads, head_dim,
            self._causal if causal is None else causal,
        )  # fmt: skip

    def _matrix(self, n: float, k: float) -> _Matrix:
        residual = self.found.residual
        steps = None if residual is None else ResidualSteps(residual, n, k, self._device.units)
        law = Stairs(self._law, n, k).time_s if self._tiled else self._smooth(n, k)
        return law, self._curves.get((n, k)), steps

    def _smooth(self, n: float, k: float) -> Callable[[Any], Any]:
        finish = Finish(self._law, n, k, 1)
        return lambda m: finish.time_s(m, tiled_s(self._law, m, n, k, 1))

    def _table(self, n: Any, k: Any) -> _Matrix | None:
        """Return what is known of a weight matrix; None where it is none."""
        if isinstance(n, np.ndarray) or isinstance(k, np.ndarray):
            return None
        table = self._tables.get((n, k))
        # A mean number of tokens is no weight matrix: its rows are not rounded up to a step.
        if table is None and n > 0 and k > 0 and n % 1 == 0 and k % 1 == 0:
            if len(self._tables) >= MOST_TABLES:
                self._tables.clear()
            table = self._tables[n, k] = self._matrix(n, k)
        return table

    def _gemm(self, m: Any, n: Any, k: Any, batch: Any = 1) -> Any:
        one = batch.__class__ is int and batch == 1
        table = self._table(n, k) if one and self._by_matrix else None
        if table is not None:
            law, curve, steps = table
            time = law(m)
            if curve is not None:
                time = curve.corrected(time)
            return time if steps is None else time * steps.factor(m)
        element = LABELS[self.found.dtype].operand_bytes
        sizes = np.broadcast_arrays(*(np.asarray(size, dtype=float) for size in (m, n, k, batch)))
        m, n, k, batch = (size.ravel() for size in sizes)
        time = gemm_time_s(self._law, m, n, k, batch)
        # A single row is read as a vector, whatever its length.
        several = (batch > 1) & (m > 1)
        if several.any():
            time = time * np.where(several, alignment_cost(n, k, element), 1.0)
        for (width, depth), curve in self._curves.items():
            mask = (n == width) & (k == depth) & (batch == 1)
            if mask.any():
                time[mask] = curve.corrected(time[mask])
        alone = (batch == 1) & (m > 0) & (n > 0) & (k > 0)
        if self.found.residual is not None and alone.any():
            shapes = (m[alone], n[alone], k[alone])
            time[alone] *= np.exp(self.found.residual.log_ratio(*shapes, self._device.units))
        return time.reshape(sizes[0].shape) if sizes[0].shape else float(time[0])


def peak_of_dtype(dtype: str, device: Device) -> float:
    """Return the peak that a label's arithmetic runs at, in FLOP/s.

    Raises:
        CalibrationError: the device has none.
    """
    peak = peak_of(device, dtype)
    if peak is None:
        raise CalibrationError(
            f"the device has no {' or '.join(LABELS[dtype].arithmetic)} peak, so {dtype!r} cannot "
            f"be priced; it has {', '.join(device.peaks)}"
        )
    return peak
