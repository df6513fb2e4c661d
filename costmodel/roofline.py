"""From ops to seconds: the roofline with its bracket, and the calibrated law.

Without a calibration an op takes the ideal time max(T_math, T_mem), a lower bound, and at most
T_math + T_mem, when nothing overlaps: that bracket is free uncertainty. With a calibration it takes
t0 + ((F / (e_P P))^p + (B / (e_B BW))^p)^(1/p), never less than the ideal time, and its fitted
interval. A stage takes the sum of its ops, or under eager execution the host's time to launch them,
whichever is longer; on a CPU, which is its own host, the two add up.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.plans.fused import PLAN as FUSED
from costmodel.precision.arithmetic import matrix_peak
from costmodel.quantities import traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from costmodel.calibration import Calibration
    from costmodel.plans import Plan
    from costmodel.quantities import Num, OpCost
    from hardware_specs import HardwareSpec

#: Bounds by code, as `StageCost.bound_code` and arrays of scenarios hold them.
BOUNDS = ("compute", "memory", "host")


@dataclass(frozen=True, slots=True)
class StageCost:
    """What one stage costs; every field a number, or an array over scenarios.

    Under a convention, what it does not define is None.

    Stages are kept and handed out again, so nobody may change one.

    `time_s` is the prediction, inside [`time_low_s`, `time_high_s`]. `compute_s` and `memory_s`
    split the device's time by what bounds each op, `host_s` is the time to launch the kernels.
    """

    flops: Num = 0
    executed_flops: Num = 0
    weight_bytes: Num = 0
    kv_read_bytes: Num = 0
    kv_write_bytes: Num = 0
    activation_read_bytes: Num = 0
    activation_write_bytes: Num = 0
    kernels: Num = 0
    time_s: Num = 0.0
    time_low_s: Num = 0.0
    time_high_s: Num = 0.0
    compute_s: Num = 0.0
    memory_s: Num = 0.0
    host_s: Num = 0.0

    @property
    def hbm_bytes(self) -> Num:
        """All traffic to device memory, in bytes."""
        moved: Num = traffic(self)
        return moved

    @property
    def device_s(self) -> Num:
        """Sum of the ops' times on the device, in seconds."""
        return self.compute_s + self.memory_s

    @property
    def bound_code(self) -> Num:
        """Index into `BOUNDS` of what holds most of the time; -1 for an empty stage."""
        busy = np.where(np.asarray(self.compute_s) >= self.memory_s, 0, 1)
        code = np.where(np.asarray(self.host_s) > self.device_s, 2, busy)
        return np.where(np.asarray(self.kernels) > 0, code, -1)

    @property
    def bound(self) -> str | None:
        """`compute`, `memory` or `host`; None for a stage that runs nothing (scalars only)."""
        if self.kernels == 0 or self.compute_s is None:
            return None
        if self.host_s is not None and self.host_s > self.device_s:
            return "host"
        return "compute" if self.compute_s >= self.memory_s else "memory"

    def __getitem__(self, name: str) -> Any:
        """Return a quantity by name, as in the JSON document."""
        return getattr(self, name)

    def __add__(self, other: StageCost) -> StageCost:
        """Return the two stages run one after the other."""
        return StageCost(*(getattr(self, n) + getattr(other, n) for n in _FIELDS))


#: An attention's shape, as a calibration names it.
_ATTENTION_SIZES = ("batch", "q_len", "kv_len", "heads", "kv_heads", "head_dim", "causal")
_FIELDS = tuple(field.name for field in fields(StageCost))


class Roofline:
    """Prices ops on one device.

    Args:
        hardware: the device.
        calibration: measured efficiencies, or None for the ideal roofline.
        plan: who launches the ops; `fused` when not given.
    """

    def __init__(
        self,
        hardware: HardwareSpec,
        calibration: Calibration | None = None,
        plan: Plan | None = None,
    ) -> None:
        self.hardware = hardware
        self.calibration = calibration
        self.plan = FUSED if plan is None else plan
        self.bandwidth = hardware.bandwidth_bytes_per_s
        # Some accelerators publish no vector peak: their pointwise work is charged by bytes alone.
        self.vector_peak = hardware.peak_or_none("fp32", engine="vector")
        # A processor issues its own work: launching and computing cannot overlap, so they add up.
        self.own_host = hardware.id.startswith("cpu-")
        self._peaks: dict[str, float] = {}

    def peak(self, dtype: str) -> float:
        """Return the dense peak that a label's arithmetic runs at, in FLOP/s.

        Weight-only labels (`w4a16`) compute in FP16, `w8a8` on INT8 units. FP32 runs on the matrix
        units where a device has them for FP32, else on its vector units.

        Raises:
            MissingPeakError: the device has no such path; names those it has.
        """
        found = self._peaks.get(dtype)
        if found is None:
            found = self._peaks[dtype] = matrix_peak(self.hardware, dtype)
        return found

    def bounds_of(self, op: OpCost) -> tuple[Num, Num, Num]:
        """Return the seconds one execution needs of the matrix units, the vector units, the memory."""
        math = op.matrix_flops / self.peak(op.dtype) if op.shape is not None else 0.0
        vector = op.vector_flops / self.vector_peak if self.vector_peak else 0.0
        return math, vector, op.hbm_bytes / self.bandwidth

    def op_times(self, op: OpCost, maximum: Callable[[Any, Any], Any]) -> tuple[Num, Num, Num, Num]:
        """Return (time, low, high, bound) of one execution; the bound is True where memory holds it."""
        math, vector, memory = self.bounds_of(op)
        compute = maximum(math, vector)
        in_memory = memory > compute
        if self.calibration is None:
            ideal = maximum(compute, memory)
            low = ideal
            if self.plan.runs_pytorch and op.shape is None and self.hardware.l2_bytes:
                # Eager chains read again what they just wrote: a tensor that fits half the L2
                # cache may never pass through device memory, so only its arithmetic is certain.
                cached = op.hbm_bytes < self.hardware.l2_bytes / 2 * op.kernels
                low = ideal * (1 - cached) + compute * cached
            return ideal, low, math + vector + memory, in_memory
        # Bytes are counted as traffic to device memory. The law lets a cache serve some of them; how
        # many is known of no run, so that the bound on all of them holds for every prediction.
        time = maximum(self._calibrated(op), maximum(compute, memory))
        below, above = self.calibration.op_interval(op.op_class, op.dtype)
        return time, time * below, time * above, in_memory

    def _calibrated(self, op: OpCost) -> Num:
        calibration = self.calibration
        assert calibration is not None  # noqa: S101 - callers checked; narrows the type
        kernels = 1
        sizes: dict[str, Any]
        if op.op_class in ("gemm", "conv"):
            assert op.shape is not None  # noqa: S101 - every product carries its shape
            m, n, k, *batch = op.shape
            sizes = {"m": m, "n": n, "k": k, "batch": batch[0] if batch else 1}
        elif op.shape is not None:
            sizes = dict(zip(_ATTENTION_SIZES, op.shape, strict=True))
        else:
            # A chain of kernels: each passes over its share of the bytes.
            kernels = op.kernels
            sizes = {"bytes": op.hbm_bytes / kernels, "flops": op.vector_flops / kernels}
        time: Num = calibration.op_time_s(op.op_class, dtype=op.dtype, **sizes)
        return time * kernels

    def stage(self, ops: Sequence[OpCost], vector: bool) -> StageCost:
        """Add ops up to a stage.

        Args:
            ops: the stage's ops.
            vector: whether the numbers are arrays over scenarios.
        """
        maximum: Callable[[Any, Any], Any] = np.maximum if vector else max
        flops: Num = 0
        executed: Num = 0
        weights: Num = 0
        kv_read: Num = 0
        kv_write: Num = 0
        read: Num = 0
        write: Num = 0
        kernels: Num = 0
        time: Num = 0.0
        low: Num = 0.0
        high: Num = 0.0
        compute: Num = 0.0
        host: Num = 0.0
        for op in ops:
            count = op.count
            op_time, op_low, op_high, in_memory = self.op_times(op, maximum)
            # Not in place: counts of whole numbers and of fractions may meet.
            flops = flops + op.flops * count
            executed = executed + op.executed_flops * count
            weights = weights + op.weight_bytes * count
            kv_read = kv_read + op.kv_read_bytes * count
            kv_write = kv_write + op.kv_write_bytes * count
            read = read + op.activation_read_bytes * count
            write = write + op.activation_write_bytes * count
            kernels = kernels + op.kernels * count
            spent = op_time * count
            time += spent
            low += op_low * count
            high += op_high * count
            # Multiplying by the flag picks the side without branching over arrays.
            compute += spent * (1 - in_memory)
        device = time
        if self.calibration is not None and self.plan.host_launches and ops:
            # Where nothing is launched nobody waits.
            waits = self.calibration.host_sync_s * (kernels > 0)
            host = kernels * self.calibration.host_s_per_kernel + waits
            if self.own_host:
                time, low, high = time + host, low + host, high + host
            else:
                time, low, high = maximum(time, host), maximum(low, host), maximum(high, host)
        return StageCost(
            flops, executed, weights, kv_read, kv_write, read, write, kernels, time, low, high,
            compute, device - compute, host,
        )  # fmt: skip
