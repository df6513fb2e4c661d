"""The quantities every part of the cost model speaks in, each with one name and one unit.

FLOPs follow `torch.utils.flop_counter`: one fused multiply-add is two, matrix products, convolutions
and attention are counted (attention over the full s x t square), nothing is scaled by bit width.
What the kernels really run (causal attention over its lower triangle, pointwise work included) is
`executed_flops`. Bytes are traffic to device memory, kept apart by kind.

Shape letters, here and everywhere: b batch, s query length, t key length, d hidden width, h heads,
k KV heads, e head dim, f FFN width, v vocabulary, l layers, n visual tokens.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

#: A number, or an array of them with one entry per scenario; the formulas take both alike.
Num: TypeAlias = int | float | NDArray[Any]

#: Beyond this a count is taken for a slip of the keyboard, not for a prompt.
MOST_TOKENS = 100_000_000

#: Bytes of the memory a driver shows that no tensor gets: what CUDA leaves of NVML's total (0.25 to
#: 0.75 GiB on T4, 4090, A100 and H100, by print-outs of both), and the CUDA context with cuBLAS
#: and cuDNN (0.4 to 0.6 GB). Fragments of the allocator are not in it.
MEMORY_MARGIN_BYTES = 2**30

#: The stages of one request, in their order.
STAGES = ("vision", "projector", "reduction", "prefill", "decode")
#: What the host takes before them, where it is given: a stage that launches nothing.
REQUEST = "request"

#: The quantities of a stage, in the order of the JSON document.
COST_KEYS = (
    "flops",
    "executed_flops",
    "weight_bytes",
    "kv_read_bytes",
    "kv_write_bytes",
    "activation_read_bytes",
    "activation_write_bytes",
    "hbm_bytes",
    "kernels",
    "time_s",
    "time_low_s",
    "time_high_s",
    "ideal_time_s",
    "bound",
)
#: The quantities of the memory, likewise.
MEMORY_KEYS = (
    "weight_bytes",
    "kv_cache_bytes",
    "peak_activation_bytes",
    "peak_memory_bytes",
    "capacity_bytes",
    "fits",
    "activation_bytes_written",
)


def traffic(cost: Any) -> Any:
    """Return the bytes that an op, a row or a stage moves; None where they are not defined."""
    if cost.weight_bytes is None:
        return None
    return (
        cost.weight_bytes
        + cost.kv_read_bytes
        + cost.kv_write_bytes
        + cost.activation_read_bytes
        + cost.activation_write_bytes
    )


class OpCost(NamedTuple):
    """What one execution of one op costs; `count` says how often it runs.

    Attributes:
        name: the op's name in its layer, such as `q_proj`.
        op_class: one of `costmodel.calibration.OP_CLASSES`.
        dtype: the arithmetic it runs in: names the peak and the calibration.
        count: executions (layers, or layers x decode steps).
        flops: counted FLOPs of one execution.
        matrix_flops: FLOPs its matrix kernels execute.
        vector_flops: FLOPs it executes outside the matrix units.
        weight_bytes: weights read, with their scales.
        kv_read_bytes: KV cache read.
        kv_write_bytes: KV cache written.
        activation_read_bytes: activations read.
        activation_write_bytes: activations written.
        kernels: device kernels launched by one execution.
        shape: what a calibration needs beyond FLOPs and bytes: (m, n, k[, batch]) of a GEMM or convolution,
            (batch, q_len, kv_len, heads, kv_heads, head_dim, causal) of an attention.
    """

    name: str
    op_class: str
    dtype: str
    count: Num  # type: ignore[assignment]  # hides tuple's method, which nobody needs here
    flops: Num = 0
    matrix_flops: Num = 0
    vector_flops: Num = 0
    weight_bytes: Num = 0
    kv_read_bytes: Num = 0
    kv_write_bytes: Num = 0
    activation_read_bytes: Num = 0
    activation_write_bytes: Num = 0
    kernels: int = 1
    shape: tuple[Any, ...] | None = None

    def within(self, layers: str) -> OpCost:
        """Return the op with the layers it runs in behind its name, such as `[0:2]`."""
        return tuple.__new__(OpCost, (self.name + layers, *self[1:]))

    @property
    def hbm_bytes(self) -> Num:
        """Traffic of one execution to device memory, in bytes."""
        return (
            self.weight_bytes
            + self.kv_read_bytes
            + self.kv_write_bytes
            + self.activation_read_bytes
            + self.activation_write_bytes
        )

    @property
    def executed_flops(self) -> Num:
        """What one execution runs: matrix and vector work."""
        return self.matrix_flops + self.vector_flops


_new = tuple.__new__


def op_cost(
    name: str,
    op_class: str,
    dtype: str,
    count: Num,
    flops: Num = 0,
    matrix_flops: Num = 0,
    vector_flops: Num = 0,
    weight_bytes: Num = 0,
    kv_read_bytes: Num = 0,
    kv_write_bytes: Num = 0,
    activation_read_bytes: Num = 0,
    activation_write_bytes: Num = 0,
    kernels: int = 1,
    shape: tuple[Any, ...] | None = None,
) -> OpCost:
    """Return an `OpCost`, its quantities by keyword: faster than the class itself, and no less clear.

    >>> op_cost("add", "pointwise", "fp16", 1, activation_read_bytes=4).hbm_bytes
    4
    """
    return _new(
        OpCost,
        (
            name, op_class, dtype, count, flops, matrix_flops, vector_flops, weight_bytes,
            kv_read_bytes, kv_write_bytes, activation_read_bytes, activation_write_bytes, kernels,
            shape,
        ),
    )  # fmt: skip


def whole(value: Num) -> Any:
    """Return an integral number as a Python int, and anything else unchanged: for one scenario's results.

    >>> whole(4.0), whole(4.5), whole(np.float64(2.0))
    (4, 4.5, 2)
    """
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return int(value)
    if isinstance(value, np.generic):
        return value.item()
    return value
