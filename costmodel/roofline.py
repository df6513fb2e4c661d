"""From ops to seconds: the roofline with its bracket, and the calibrated law.

The ideal time of an op is max(T_math, T_mem), and at most T_math + T_mem, when nothing overlaps: that
bracket is free uncertainty. With a calibration it takes what the law of its class says
(`costmodel.calibration`), never less than the ideal, and the interval of `costmodel.uncertainty`. A stage
takes the sum of its ops, or under eager execution the host's time to launch them, whichever is longer;
on a CPU, which is its own host, the two add up.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import partial, reduce
from operator import add, attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.calibration.intervals import spread_at
from costmodel.calibration.parameters import Parameter
from costmodel.parallel.exchange import apart, is_collective
from costmodel.plans.fused import PLAN as FUSED
from costmodel.power_roof import power_roof
from costmodel.precision.arithmetic import matrix_peak
from costmodel.quantities import traffic
from costmodel.uncertainty import BRACKET, HOST, NOTHING, Errors, Host, Part, errors_of, joined
from hardware_specs.showing import brief

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from costmodel.calibration import Calibration
    from costmodel.calibration.pricing import Pricer
    from costmodel.parallel import Parallel
    from costmodel.parallel.network import Network
    from costmodel.plans import Plan
    from costmodel.quantities import Num, OpCost
    from hardware_specs import HardwareSpec

#: Bounds by code, as `StageCost.bound_code` and arrays of scenarios hold them.
BOUNDS = ("compute", "memory", "host", "power", "link")


@dataclass(frozen=True, slots=True)
class StageCost:
    """What one stage costs; every field a number, or an array over scenarios.

    Under a convention, what it does not define is None.

    Stages are kept and handed out again, so nobody may change one.

    `time_s` is the prediction, inside [`time_low_s`, `time_high_s`]; `ideal_time_s` is the roofline's,
    at best. `compute_s` and `memory_s` split the device's time by what bounds each op, `link_s` is the time
    of collectives beside them, `power_s` what of the time the board's power limit holds, `host_s` the time to
    launch all its kernels (the argument `host_s` of `estimate` is seconds for one). `errors` says how the
    interval adds up with those of other stages.
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
    ideal_time_s: Num = 0.0
    compute_s: Num = 0.0
    memory_s: Num = 0.0
    power_s: Num = 0.0
    host_s: Num = 0.0
    link_s: Num = 0.0
    errors: Errors | None = field(default=NOTHING, repr=False, compare=False)

    __repr__ = brief

    @property
    def hbm_bytes(self) -> Num:
        """All traffic to device memory, in bytes."""
        moved: Num = traffic(self)
        return moved

    @property
    def device_s(self) -> Num:
        """Sum of the ops' times on the device, in seconds."""
        return self.compute_s + self.memory_s + self.link_s

    @property
    def bound_code(self) -> Num:
        """Index into `BOUNDS` of what holds most of the time; -1 for an empty stage."""
        busy = np.where(np.asarray(self.compute_s) >= self.memory_s, 0, 1)
        busy = np.where(2 * np.asarray(self.power_s) > self.device_s, 3, busy)
        busy = np.where(2 * np.asarray(self.link_s) > self.device_s, 4, busy)
        code = np.where(np.asarray(self.host_s) > self.device_s, 2, busy)
        return np.where(np.asarray(self.kernels) > 0, code, -1)

    @property
    def bound(self) -> str | None:
        """What holds most of the time, one of `BOUNDS`; None for a stage that runs nothing (scalars only)."""
        if self.kernels == 0 or self.compute_s is None:
            return None
        if self.host_s is not None and self.host_s > self.device_s:
            return "host"
        if self.power_s is not None and 2 * self.power_s > self.device_s:
            return "power"
        if self.link_s is not None and 2 * self.link_s > self.device_s:
            return "link"
        return "compute" if self.compute_s >= self.memory_s else "memory"

    def __getitem__(self, name: str) -> Any:
        """Return a quantity by name, as in the JSON document."""
        return getattr(self, name)

    def __add__(self, other: StageCost) -> StageCost:
        """Return the two stages run one after the other."""
        return StageCost(*added((self, other)))

    def mapped(self, change: Callable[[Any], Any]) -> StageCost:
        """Return the cost of other scenarios, as an index or a mask gives them."""
        errors = None if self.errors is None else self.errors.mapped(change)
        return StageCost(**{name: change(getattr(self, name)) for name in SUMMED}, errors=errors)


#: A stage that runs nothing.
_EMPTY = StageCost()


def waiting(seconds: float) -> StageCost:
    """Return a stage in which the host works and nothing is launched, as long as its user says."""
    own = Errors(seconds, {(HOST, "", "measured"): Part(seconds, 0.0, 0.0)})
    return StageCost(
        time_s=seconds, time_low_s=seconds, time_high_s=seconds, ideal_time_s=seconds, host_s=seconds,
        errors=own,
    )  # fmt: skip


#: The quantities that are numbers, in the order of the fields: all but the last, `errors`.
SUMMED = tuple(each.name for each in fields(StageCost) if each.name != "errors")
_TIME, _LOW, _HIGH = map(SUMMED.index, ("time_s", "time_low_s", "time_high_s"))
_summed = attrgetter(*SUMMED)
_fieldwise: Callable[[Any, Any], Any] = partial(map, add)


def added(costs: Sequence[StageCost]) -> list[Any]:
    """Return the fields of stages run one after the other; only the interval is no plain sum."""
    costs = [cost for cost in costs if cost is not _EMPTY] or [_EMPTY]
    # Field by field; an array needs no pass to start from 0.
    found = list(reduce(_fieldwise, map(_summed, costs)))
    errors = joined([cost.errors for cost in costs if cost.errors is not None])
    found[_LOW], found[_HIGH] = errors.interval(found[_TIME])
    return [*found, errors]


class Roofline:
    """Prices ops on one device.

    Args:
        hardware: the device.
        calibration: measured efficiencies, or None for the ideal roofline.
        plan: who launches the ops; `fused` when not given.
        host_s: host seconds per kernel; None takes the calibration's, and no host without one.
        power_limit_w: the board's power limit, W; None is the device's own.
        parallel: how devices share the work; None is one device.

    Attributes:
        network: the links between the ranks of a tensor group or a pipeline, which price collectives.
    """

    def __init__(
        self,
        hardware: HardwareSpec,
        calibration: Calibration | None = None,
        plan: Plan | None = None,
        host_s: float | None = None,
        power_limit_w: float | None = None,
        parallel: Parallel | None = None,
    ) -> None:
        self.hardware = hardware
        self.calibration = calibration
        self.plan = FUSED if plan is None else plan
        self.bandwidth = hardware.bandwidth_bytes_per_s
        # Some accelerators publish no vector peak: their pointwise work is charged by bytes alone.
        self.vector_peak = hardware.peak_or_none("fp32", engine="vector")
        # A processor issues its own work: launching and computing cannot overlap, so they add up.
        self.own_host = hardware.id.startswith("cpu-")
        self.host = self._host(host_s)
        self.network: Network | None = None
        if parallel is not None and parallel.tp * parallel.pp + parallel.apart > 1:
            from costmodel.parallel.network import Network

            self.network = Network(
                hardware, parallel, direct=not self.plan.runs_pytorch, ideal=calibration is None
            )
        # The ideal roofline is the datasheet's; a law predicts sustained load.
        self.power = None if calibration is None else power_roof(hardware, power_limit_w)
        # Bytes that a kernel of an eager chain may find in the cache; 0 where all pass through memory.
        self._rereads_below = (hardware.l2_bytes or 0) / 2 if self.plan.runs_pytorch else 0
        #: Least seconds of a FLOP of a dtype, and of a byte beside it; None where power holds nothing.
        self._by_power: dict[str, tuple[Num, Num] | None] = {}
        self._peaks: dict[str, float] = {}

    def _host(self, seconds: float | None) -> Host | None:
        """Return what the host costs; None where it launches nothing or nothing is known of it."""
        if not self.plan.host_launches:
            return None
        if self.calibration is not None:
            waits = self.calibration.host_sync_s
            known = self.calibration.intervals.get("host_sync_s")
            ends = (waits, waits) if known is None else (known.low or 0.0, known.high or waits)
        else:
            waits, ends = 0.0, (0.0, 0.0)
        if seconds is not None:
            return Host(seconds, seconds, seconds, waits, *ends, "measured")
        if self.calibration is None:
            return None
        value = self.calibration.host_s_per_kernel
        interval = self.calibration.intervals.get("host_s_per_kernel") or Parameter(value)
        note = self.calibration.notes.get("host_s_per_kernel", "assumed")
        standing = "measured" if note.startswith("measured") else "assumed"
        low = value if interval.low is None else interval.low
        high = value if interval.high is None else interval.high
        return Host(value, low, high, waits, *ends, standing)

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
        (_, _, dtype, _, _, matrix, vector, weights, kv_read, kv_write, read, write, _, shape) = op
        math = matrix / (self._peaks.get(dtype) or self.peak(dtype)) if shape is not None else 0.0
        units = vector / self.vector_peak if self.vector_peak else 0.0
        return math, units, (weights + kv_read + kv_write + read + write) / self.bandwidth

    def op_times(self, op: OpCost, maximum: Callable[[Any, Any], Any]) -> tuple[Num, Num, Num, Num]:
        """Return (time, ideal time, in memory, by power) of one execution.

        The last two are True where memory holds it at the datasheet's rates, and where power does.
        """
        if self.network is not None and is_collective(op):
            return self.network.seconds(op), self.network.ideal_s(op), False, False
        math, vector, memory = self.bounds_of(op)
        compute = maximum(math, vector)
        ideal = maximum(compute, memory)
        time, by_power = (
            (ideal, False)
            if self.calibration is None
            else self._law(
                op, op.hbm_bytes, self.calibration.pricer(op.op_class, op.dtype), ideal, maximum
            )
        )
        return time, ideal, memory > compute, by_power

    def _law(
        self,
        op: OpCost,
        moved: Num,
        pricer: Pricer,
        ideal: Num,
        maximum: Callable[[Any, Any], Any],
    ) -> tuple[Num, Num]:
        """Return the calibrated time of one execution that moves some bytes, and whether power holds it."""
        # Bytes are counted as traffic to device memory. The law lets a cache serve some of them; how
        # many is known of no run, so that the bound on all of them holds for every prediction.
        shape = op.shape
        if shape is None:
            # A chain of kernels: each passes over its share of the bytes.
            kernels = op.kernels
            if kernels == 1:
                return maximum(pricer.time_s(moved, op.vector_flops), ideal), False
            each = pricer.time_s(moved / kernels, op.vector_flops / kernels)
            return maximum(each * kernels, ideal), False
        time = maximum(pricer.time_s(*shape), ideal)
        dtype = op.dtype
        if dtype not in self._by_power:
            self._by_power[dtype] = None if self.power is None else self.power.rates(dtype)
        rates = self._by_power[dtype]
        if rates is None:
            return time, False
        per_flop, per_byte = rates
        least = op.matrix_flops * per_flop + moved * per_byte
        return maximum(time, least), least > time

    def op_interval(
        self, op: OpCost, time: Num, maximum: Callable[[Any, Any], Any]
    ) -> tuple[Num, Num]:
        """Return the ends of the 90 % interval of one execution, or of the ideal roofline's bracket.

        Args:
            op: the op.
            time: its time, from `op_times`.
            maximum: `max`, or numpy's for arrays.
        """
        if self.network is not None and is_collective(op):
            return self.network.interval(time)
        if self.calibration is not None:
            rows = None if op.shape is None else op.shape[0]
            below, above = self.calibration.op_interval(op.op_class, op.dtype, rows=rows)
            return time - maximum(time - time * below, 0.0), maximum(time, time * above)
        math, vector, memory = self.bounds_of(op)
        return self._at_least(op, time, maximum(math, vector)), math + vector + memory

    def _at_least(self, op: OpCost, time: Num, compute: Num) -> Num:
        """Return the low end of the roofline's bracket, whose high end is nothing overlapping."""
        if op.shape is not None or not self._rereads_below:
            return time
        # Eager chains read again what they just wrote: a tensor that fits half the L2
        # cache may never pass through device memory, so only its arithmetic is certain.
        cached = op.hbm_bytes < self._rereads_below * op.kernels
        return time * (1 - cached) + compute * cached

    def times(self, ops: Sequence[OpCost], vector: bool) -> StageCost:
        """Return what `stage` does, of which only the time and the kernels are worked out.

        Args:
            ops: the stage's ops.
            vector: whether the numbers are arrays over scenarios.
        """
        maximum: Callable[[Any, Any], Any] = np.maximum if vector else max
        sent: list[OpCost] = []
        if self.network is not None:
            ops, sent = apart(ops)
        time: Num = 0.0
        kernels: Num = 0
        for op in ops:
            math, pointwise, memory = self.bounds_of(op)
            spent = maximum(maximum(math, pointwise), memory)
            if self.calibration is not None:
                pricer = self.calibration.pricer(op.op_class, op.dtype)
                spent, _ = self._law(op, op.hbm_bytes, pricer, spent, maximum)
            time = time + spent * op.count
            kernels = kernels + op.kernels * op.count
        if sent and self.network is not None:
            link, _, launched = self.network.spent(sent, vector)
            time, kernels = time + link, kernels + launched
        if self.host is not None:
            time, _ = self.host.lasts(time, kernels, self.own_host)
        return StageCost(kernels=kernels, time_s=time)

    def stage(self, ops: Sequence[OpCost], vector: bool) -> StageCost:
        """Add ops up to a stage.

        Args:
            ops: the stage's ops.
            vector: whether the numbers are arrays over scenarios.
        """
        if not ops:
            return _EMPTY
        sent: list[OpCost] = []
        if self.network is not None:
            ops, sent = apart(ops)
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
        best: Num = 0.0
        compute: Num = 0.0
        power: Num = 0.0
        low: Num = 0.0
        high: Num = 0.0
        # By class: its pricer and how errors grow as rows get fewer; the sums of the ops' times, of their
        # spreads' squares, and of these spreads where they grow; the last rows, and the spread there.
        sums: dict[tuple[str, str], list[Any]] = {}
        calibration = self.calibration
        peaks, vector_peak, bandwidth = self._peaks, self.vector_peak, self.bandwidth
        certain = not self._rereads_below
        for op in ops:
            # One unpacking costs less than a dozen attributes, and this loop is most of an estimate.
            (
                _, op_class, dtype, count, counted, matrix, units, op_weights, op_kv_read,
                op_kv_write, op_read, op_write, launched, shape,
            ) = op  # fmt: skip
            # The bounds of `bounds_of`.
            pointwise = units / vector_peak if vector_peak else 0.0
            moved = op_weights + op_kv_read + op_kv_write + op_read + op_write
            memory = moved / bandwidth
            math: Num = 0.0
            busy = pointwise
            if shape is not None:
                math = matrix / (peaks.get(dtype) or self.peak(dtype))
            if vector:
                if shape is not None:
                    busy = np.maximum(math, pointwise)
                computes, op_best = memory <= busy, np.maximum(busy, memory)
            else:
                if math > pointwise:
                    busy = math
                computes = memory <= busy
                op_best = busy if computes else memory
            # Not in place: counts of whole numbers and of fractions may meet.
            flops = flops + counted * count
            executed = executed + (matrix + units) * count
            weights = weights + op_weights * count
            kv_read = kv_read + op_kv_read * count
            kv_write = kv_write + op_kv_write * count
            read = read + op_read * count
            write = write + op_write * count
            kernels = kernels + launched * count
            if calibration is None:
                spent = op_best * count
                if not certain:
                    low += self._at_least(op, op_best, busy) * count
                high += (math + pointwise + memory) * count
                held = None
            else:
                held = sums.get((op_class, dtype))
                if held is None:
                    pricer = calibration.pricer(op_class, dtype)
                    held = sums[op_class, dtype] = [pricer, pricer.growth, 0.0, 0.0, 0.0, None, 1.0]
                op_time, by_power = self._law(op, moved, held[0], op_best, maximum)
                spent = op_time * count
            time += spent
            if vector:  # Multiplying by the flag picks the side without branching.
                compute += spent * computes
            elif computes:
                compute += spent
            if held is None:
                continue
            if by_power is not False:
                power += spent * by_power
            best += op_best * count
            held[2] += spent
            if held[1] and shape is not None:
                # A layer's products mostly share their rows.
                if held[5] is not shape[0]:
                    held[5], held[6] = shape[0], spread_at(shape[0], held[1])
                spent = spent * held[6]
                held[4] += spent
            held[3] += spent * spent
        device = time
        link: Num = 0.0
        if calibration is None:
            best = time
            below = 0.0 if certain else time - low
            errors = Errors(time, {BRACKET: Part(time, below, high - time)})
        else:
            errors = errors_of(
                [
                    (pricer.key, pricer.widths, whole, wide if growth else whole, squares)
                    for pricer, growth, whole, squares, wide, _, _ in sums.values()
                ],
                across=calibration.kind == "shipped",
            )
        if sent and self.network is not None:
            link, least, launched = self.network.spent(sent, vector)
            time, best, kernels = time + link, best + least, kernels + launched
            errors = errors.plus(self.network.errors(link))
        host: Num = 0.0
        if self.host is not None:
            time, host, errors = self.host.launched(time, kernels, errors, self.own_host)
        low, high = errors.interval(time)
        return StageCost(
            flops, executed, weights, kv_read, kv_write, read, write, kernels, time, low, high,
            best, compute, device - compute, power, host, link, errors,
        )  # fmt: skip
