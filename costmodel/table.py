"""The per-op table: every op of an estimate with its bytes by kind, bound, time and provenance."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from costmodel.quantities import whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costmodel.quantities import OpCost
    from costmodel.roofline import Roofline


@dataclass(frozen=True, slots=True)
class OpRow:
    """One op over all its executions.

    Attributes:
        stage: the stage it belongs to.
        name: the op, with the layers it spans in brackets when they are not all.
        op_class: its class.
        dtype: its arithmetic.
        count: executions.
        flops: counted FLOPs.
        executed_flops: FLOPs the kernels run.
        weight_bytes: weights read.
        kv_read_bytes: KV cache read.
        kv_write_bytes: KV cache written.
        activation_read_bytes: activations read.
        activation_write_bytes: activations written.
        hbm_bytes: all of these bytes.
        kernels: kernels launched.
        intensity_flop_per_byte: executed FLOPs per byte.
        bound: `compute` or `memory`.
        time_s: predicted seconds on the device.
        time_low_s: lower end.
        time_high_s: upper end.
        sol_percent: speed of light, the ideal time as a share of the predicted one.
        provenance: where the time comes from.
    """

    stage: str
    name: str
    op_class: str
    dtype: str
    count: int
    flops: int
    executed_flops: int
    weight_bytes: float
    kv_read_bytes: float
    kv_write_bytes: float
    activation_read_bytes: float
    activation_write_bytes: float
    hbm_bytes: float
    kernels: int
    intensity_flop_per_byte: float | None
    bound: str
    time_s: float
    time_low_s: float
    time_high_s: float
    sol_percent: float | None
    provenance: str

    def to_dict(self) -> dict[str, Any]:
        """Return the row as a dictionary."""
        return asdict(self)


def op_rows(by_stage: Mapping[str, list[OpCost]], roofline: Roofline) -> tuple[OpRow, ...]:
    """Price every op on its own.

    Args:
        by_stage: the ops of each stage.
        roofline: what prices them.
    """
    rows = []
    for stage, ops in by_stage.items():
        for op in ops:
            count = op.count
            if not count:
                continue
            time, low, high, in_memory = roofline.op_times(op, max)
            math, vector, memory = roofline.bounds_of(op)
            ideal = max(math, vector, memory)
            total_bytes = op.hbm_bytes * count
            rows.append(
                OpRow(
                    stage,
                    op.name,
                    op.op_class,
                    op.dtype,
                    whole(count),
                    whole(op.flops * count),
                    whole(op.executed_flops * count),
                    whole(op.weight_bytes * count),
                    whole(op.kv_read_bytes * count),
                    whole(op.kv_write_bytes * count),
                    whole(op.activation_read_bytes * count),
                    whole(op.activation_write_bytes * count),
                    whole(total_bytes),
                    whole(op.kernels * count),
                    float(op.executed_flops * count / total_bytes) if total_bytes else None,
                    "memory" if in_memory else "compute",
                    float(time * count),
                    float(low * count),
                    float(high * count),
                    100 * float(ideal / time) if time else None,
                    provenance(op, roofline, bool(in_memory)),
                )
            )
    return tuple(rows)


def provenance(op: OpCost, roofline: Roofline, in_memory: bool) -> str:
    """Say where an op's time comes from."""
    if roofline.calibration is not None:
        return str(roofline.calibration.provenance(op.op_class, op.dtype))
    limit = "bytes / bandwidth" if in_memory else "executed FLOPs / peak"
    return f"computed: {limit} of {roofline.hardware.id}"
