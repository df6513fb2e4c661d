"""Each op against its roof and against the estimate: what it needs at datasheet rates, and what the law says.

    product        2 m n k FLOPs; a, b and out pass through memory once
    attention      4 b h s t e FLOPs, the lower triangle where it is causal; q, k, v and out pass once
    convolution    of patches that do not overlap: the product that it is
    all others     no matrix FLOPs; inputs and the broadcast output pass once

An op without recorded sizes has no roof: its time stays, its roof is missing.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from costmodel.ops.attention import attended_pairs
from costmodel.quantities import OpCost, op_cost
from costmodel.roofline import Roofline
from hardware_specs.errors import CalibrationError, MissingPeakError
from profiling.explaining.calls import DTYPES, dtype_of, shapes
from profiling.explaining.naming import ATTENTION

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from costmodel.calibration import Calibration
    from hardware_specs import HardwareSpec
    from profiling.explaining.calls import Call

#: Classes whose bytes a law of streams prices, and the class that it holds them under.
_STREAMS = {
    "norm": "norm",
    "softmax": "softmax",
    "pointwise": "pointwise",
    "reduce": "pointwise",
    "copy": "copy",
    "embedding": "embedding",
}
#: A tensor with heads has so many dimensions; kernels on it read with strides.
_WITH_HEADS = 4


@dataclass(frozen=True, slots=True)
class OpRow:
    """Calls of one op with the same sizes, in one stage.

    Attributes:
        stage: their stage.
        op_class: their class.
        name: the op.
        sizes: what it was given, in words.
        dtype: of its arithmetic; empty where types were not recorded.
        calls: how many.
        kernels: kernels that they launched.
        time_s: seconds of these on the device.
        flops: FLOPs of all calls; None where the sizes do not say.
        hbm_bytes: bytes likewise.
        ideal_s: seconds at datasheet rates; None without sizes or device.
        predicted_s: seconds by the calibration; None where it holds no such class.
        kernel: the kernel that took most of the time.
        cost: one call as the cost model counts it.
    """

    stage: str
    op_class: str
    name: str
    sizes: str
    dtype: str
    calls: int
    kernels: int
    time_s: float
    flops: float | None
    hbm_bytes: float | None
    ideal_s: float | None
    predicted_s: float | None
    kernel: str
    cost: OpCost | None = None


def op_rows(
    calls: Sequence[Call],
    stages: Sequence[str],
    hardware: HardwareSpec | None,
    calibration: Calibration | None,
) -> list[OpRow]:
    """Return the ops of a trace with their roofs, the longest first.

    Args:
        calls: of the trace.
        stages: the stage of each.
        hardware: the device; None leaves the roofs out.
        calibration: its calibration; None leaves the estimates out.
    """
    groups: dict[tuple[object, ...], list[Call]] = {}
    for call, stage in zip(calls, stages, strict=True):
        key = (stage, call.op_class, call.name, call.ops[-1].sizes, call.ops[-1].types,
               call.product, call.attention)  # fmt: skip
        groups.setdefault(key, []).append(call)
    usual = _usual(calls)
    sheet = None if hardware is None else Roofline(hardware, None)
    law = None if hardware is None or calibration is None else Roofline(hardware, calibration)
    rows = [
        _row(str(key[0]), members, cost_of(members[0], usual), sheet, law)
        for key, members in groups.items()
    ]
    return sorted(rows, key=lambda row: -row.time_s)


def _row(
    stage: str,
    members: Sequence[Call],
    cost: OpCost | None,
    sheet: Roofline | None,
    law: Roofline | None,
) -> OpRow:
    first, count = members[0], len(members)
    works = [work for call in members for work in call.works]
    longest = max(first.works, key=lambda work: work.length_us).name
    ideal = predicted = None
    if cost is not None:
        ideal, predicted = _seconds(sheet, cost), _seconds(law, cost)
    return OpRow(
        stage=stage,
        op_class=first.op_class,
        name=first.name,
        sizes=_in_words(first),
        dtype=dtype_of(first.ops[-1])[0],
        calls=count,
        kernels=len(works),
        time_s=sum(work.length_us for work in works) * 1e-6,
        flops=None if cost is None else float(cost.executed_flops) * count,
        hbm_bytes=None if cost is None else float(cost.hbm_bytes) * count,
        ideal_s=None if ideal is None else ideal * count,
        predicted_s=None if predicted is None else predicted * count,
        kernel=longest,
        cost=cost,
    )


def _seconds(roofline: Roofline | None, cost: OpCost) -> float | None:
    """Return the seconds of one call; None where the device or the law has no such arithmetic or class."""
    if roofline is None:
        return None
    try:
        return float(roofline.op_times(cost, max)[0])
    except (CalibrationError, MissingPeakError):
        return None


def _in_words(call: Call) -> str:
    product, attention = call.product, call.attention
    if product is not None:
        batch = f"{product.batch} x " if product.batch > 1 else ""
        return f"{batch}{product.m} x {product.n} x {product.k}"
    if attention is not None:
        kv = "" if attention.kv_heads == attention.heads else f" ({attention.kv_heads} KV)"
        return (
            f"{attention.batch} x {attention.q_len} over {attention.kv_len}, "
            f"{attention.heads} heads{kv} of {attention.head_dim}"
            + (", causal" if attention.causal else "")
        )
    found = shapes(call.ops[-1])
    return ", ".join(" x ".join(map(str, size)) for size in found[:2])


def _usual(calls: Iterable[Call]) -> tuple[str, int]:
    """Return the dtype of most products: of lists of tensors, traces do not say the type."""
    found = Counter(dtype_of(call.ops[-1]) for call in calls if call.product is not None)
    return found.most_common(1)[0][0] if found else ("", 0)


def cost_of(call: Call, usual: tuple[str, int] = ("", 0)) -> OpCost | None:
    """Return one call as the cost model counts it; None where its sizes do not say.

    Args:
        call: from `profiling.explaining.calls`.
        usual: dtype and bytes of an element where only a list of tensors is known.
    """
    op = call.ops[-1]
    dtype, size = dtype_of(op)
    if not size and op.types and op.types[0] == "TensorList":
        dtype, size = usual
    if not size:
        return None
    if call.op_class == "conv":
        return _patches(call, dtype, size)
    if call.product is not None:
        m, n, k, batch = call.product.m, call.product.n, call.product.k, call.product.batch
        flops = 2 * batch * m * n * k
        once = 1 if call.product.weights else batch
        return op_cost(
            call.name, "gemm", dtype, 1, flops=flops, matrix_flops=flops,
            weight_bytes=once * n * k * size * call.product.weights,
            activation_read_bytes=(batch * m * k + (0 if call.product.weights else batch * n * k)) * size,
            activation_write_bytes=batch * m * n * size, shape=(m, n, k, batch),
        )  # fmt: skip
    if call.attention is not None:
        b, s, t, h, kv, e, causal = call.attention
        if call.op_class not in ATTENTION or min(b, s, t, h, kv, e) < 1:
            return None
        pairs = attended_pairs(s, t, causal and s <= t)
        return op_cost(
            call.name, call.op_class, dtype, 1, flops=4 * b * h * s * t * e,
            matrix_flops=4 * b * h * pairs * e,
            activation_read_bytes=b * (s * h + 2 * t * kv) * e * size,
            activation_write_bytes=b * s * h * e * size, shape=(b, s, t, h, kv, e, causal),
        )  # fmt: skip
    return _stream(call, dtype, size)


def _patches(call: Call, dtype: str, size: int) -> OpCost | None:
    """A convolution whose windows do not overlap: m patches x n channels x k inputs of each."""
    for op in call.ops:
        found = shapes(op)
        if len(found) < 2 or len(found[0]) != len(found[1]) or len(found[0]) < 3:
            continue
        images, kernel = found[0], found[1]
        windows = [side // step for side, step in zip(images[2:], kernel[2:], strict=True) if step]
        strides = f"[{', '.join(map(str, kernel[2:]))}]"
        if strides not in op.values or images[1] != kernel[1] or not windows:
            continue
        m, n, k = images[0] * math.prod(windows), kernel[0], math.prod(kernel[1:])
        flops = 2 * m * n * k
        return op_cost(
            call.name, "conv", dtype, 1, flops=flops, matrix_flops=flops, weight_bytes=n * k * size,
            activation_read_bytes=math.prod(images) * size, activation_write_bytes=m * n * size,
            shape=(m, n, k, 1),
        )  # fmt: skip
    return None


def _stream(call: Call, dtype: str, size: int) -> OpCost | None:
    op = call.ops[-1]
    held = _STREAMS.get(call.op_class)
    found = shapes(op)
    if held is None or not found:
        return None
    sizes = [DTYPES[each][1] for each in op.types if each in DTYPES]
    if (op.types and op.types[0] == "TensorList") or not sizes:
        sizes = [size] * len(found)
    sizes += [sizes[-1]] * (len(found) - len(sizes))
    name = call.name.rpartition("::")[2]
    largest = max(math.prod(each) for each in found)
    if call.op_class == "embedding" or name in ("index_select", "index"):
        # Rows are looked up: only those that are named are read.
        rows = math.prod(found[1]) if len(found) > 1 else 1
        read = written = rows * math.prod(found[0][1:]) * sizes[0]
    elif name == "cat":
        read = written = sum(math.prod(each) for each in found) * sizes[0]
    elif name == "copy_" and len(found) > 1:
        # copy_(to, from)
        read, written = math.prod(found[1]) * sizes[1], math.prod(found[0]) * sizes[0]
    else:
        read = sum(
            math.prod(each) * each_size for each, each_size in zip(found, sizes, strict=False)
        )
        written = 0 if call.op_class == "reduce" else largest * sizes[0]
    if name in ("fill_", "zero_"):
        read = 0
    return op_cost(
        call.name, _held_class(call, name, held, found), dtype, 1, vector_flops=largest,
        activation_read_bytes=read, activation_write_bytes=written,
        kernels=max(1, sum(work.kind == "kernel" for work in call.works)),
    )  # fmt: skip


def _held_class(call: Call, name: str, held: str, found: Sequence[tuple[int, ...]]) -> str:
    """Return the class of a law that PyTorch's own kernels have, where the op is one of them."""
    if name == "cat":
        return "cat"
    if call.op_class == "norm":
        return "layer_norm" if "norm" in name else "norm_chain"
    if call.op_class in ("pointwise", "copy") and len(found[0]) >= _WITH_HEADS:
        return "strided"
    return held
