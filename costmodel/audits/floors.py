"""Measured cells against what their work allows: below the floor is impossible, above it has a reason.

    latency     >= max(FLOPs / peak, weight bytes / bandwidth)      of the language model's prefill
    samples / s <= peak / FLOPs                                     whatever the batch
    tokens / s  <= bandwidth / weight bytes                         at batch 1
    memory      >= weight bytes, and <= the device's capacity

FLOPs are what kernels must execute (causal attention) at the row's mean token count, which never
overstates its work, or the table's own printed FLOPs less half a digit where they need longer. Where
the device's name leaves its form open, the fastest that has the name counts.
"""

from __future__ import annotations

import math
import re
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from costmodel.audits.shapes import shape_of
from costmodel.precision.arithmetic import computes, matrix_peak
from hardware_specs import get_hardware, list_hardware

if TYPE_CHECKING:
    from costmodel.audits.table import Cell, PublishedTable
    from hardware_specs import HardwareSpec

MEASURED = ("time", "rate", "memory")
#: Parts sold under another name with the same arithmetic and no more bandwidth.
_SOLD_AS = {"a800": "a100", "h800": "h100", "4090d": "4090", "h20": "h20"}
_BYTES = {"fp16": 2.0, "bf16": 2.0, "fp32": 4.0, "w8a8": 1.0, "fp8": 1.0, "w4a16": 0.5}


def devices_named(text: str) -> tuple[str, ...]:
    """Return the ids of the devices that a text may mean.

    >>> devices_named("Tesla V100 (roofline)")[0], devices_named("one A800 80GB"), devices_named("none")
    ('nvidia-v100-pcie-16gb', ('nvidia-a100-pcie-80gb', 'nvidia-a100-sxm4-80gb'), ())
    """
    known = list_hardware()
    if text.strip() in known:
        return (text.strip(),)
    words = [_SOLD_AS.get(word, word) for word in re.findall(r"[a-z0-9]+", text.lower())]
    parts = {name: name.split("-")[1:] for name in known}
    makers = {"sxm", "pcie", "rtx", "apple", "generic"}
    chips = {word for word in words if re.search(r"\d", word) and not word.endswith("gb")}
    found = [name for name, have in parts.items() if chips & set(have) - makers]
    size = [word for word in words if re.fullmatch(r"\d+gb", word)]
    sized = [name for name in found if set(size) & set(parts[name])]
    return tuple(sized or found)


def floors(
    table: PublishedTable, hardware: str | None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
    """Return (impossible cells, possible ones with how far above the floor they are, remarks)."""
    cells = [c for c in table.cells if c.quantity in MEASURED and not c.ratio and c.value > 0]
    if not cells:
        return [], [], []
    named = hardware or " ".join(table.about.get(key, "") for key in ("hardware", "device", "says"))
    ids = devices_named(named)
    if not ids:
        return [], [], ["measured cells have no floor: no device is named; give --hardware"]
    several = re.search(r"\b([2-9]|[1-9]\d)\s*[x\u00d7*]?\s+(?:[a-z]+ )*[a-z]*\d", named.lower())
    limits = _limits([get_hardware(name) for name in ids], int(several[1]) if several else 1)
    judged = [
        _judge(cell, table, limits)
        for cell in cells
        if cell.schedule is not None
        and cell.schedule.kind != "inferred"
        and cell.part in ("total", "llm", "prefill", "decode")
    ]
    found = [said for said in judged if said is not None]
    possible = [said for said in found if not said["impossible"]]
    _method_bound(possible)
    remark = f"the device may be {', '.join(ids)}: the fastest sets the floor"
    impossible = [said for said in found if said["impossible"]]
    return impossible, possible, [remark] if len(ids) > 1 else []


class _Limits(NamedTuple):
    """What the devices that may be meant do at most, all of them that are used together."""

    ids: tuple[str, ...]
    peaks: dict[str, float]
    bandwidth: float
    capacity: float


def _limits(devices: list[HardwareSpec], count: int) -> _Limits:
    peaks = {
        dtype: count * max(matrix_peak(d, dtype) for d in devices if computes(d, dtype))
        for dtype in _BYTES
        if any(computes(d, dtype) for d in devices)
    }
    bandwidth = count * max(d.bandwidth_bytes_per_s for d in devices)
    capacity = count * max(d.memory_bytes or math.inf for d in devices)
    return _Limits(tuple(d.id for d in devices), peaks, bandwidth, capacity)


def _judge(cell: Cell, table: PublishedTable, limits: _Limits) -> dict[str, Any] | None:
    """Return what a measured cell is worth, None where nothing can be said of it."""
    text = table.text_tokens or 0
    tokens, flops, weights = _work(cell, text)
    low, high = cell.interval(truncated=False)
    said: dict[str, Any] = {
        "cell": str(cell), "row": cell.row, "quantity": cell.quantity, "printed": cell.printed,
        "unit": cell.unit, "hardware": list(limits.ids), "precision": cell.precision,
    }  # fmt: skip
    if cell.quantity == "memory":
        over = low > limits.capacity
        bound = limits.capacity if over else weights
        what = "the device has" if over else "the weights alone take"
        said["text"] = f"{cell}: {what} {bound / cell.scale:.4g} {cell.unit}"
        said |= {"floor": bound / cell.scale, "floor_bytes": bound, "impossible": True}
        return said if over or high < weights else None
    peak = limits.peaks.get(cell.precision if cell.precision in _BYTES else "fp16")
    if peak is None:
        return None
    printed = _printed_flops(cell, table)
    rate, per_token = (
        cell.quantity == "rate",
        cell.unit.startswith("token") or cell.part == "decode",
    )
    # Weights are read once for a whole batch, and a batch's size is not known.
    by_flops = 0.0 if per_token else max(flops, printed) / peak
    by_bytes = 0.0 if rate and not per_token else weights / limits.bandwidth
    floor, compute = max(by_flops, by_bytes), by_flops >= by_bytes
    work = f"{weights / 1e9:.3g} GB of weights at {limits.bandwidth / 1e9:.4g} GB/s"
    if compute:
        source = "the printed" if printed > flops else "at least"
        work = f"{source} {max(flops, printed) / 1e12:.3g} TFLOP at {peak / 1e12:.4g} TFLOP/s"
    seconds = 1 / cell.value if rate else cell.value * cell.scale
    shown = 1 / floor if rate else floor / cell.scale
    said |= {
        "floor": shown, "floor_s": floor, "value_s": seconds,
        "bound": "compute" if compute else "memory",
        "impossible": (1 / high if rate else high) < floor, "times_floor": seconds / floor,
        "text": f"{cell}: at {'most' if rate else 'least'} {shown:.4g} {cell.unit} ({work})",
    }  # fmt: skip
    if not said["impossible"]:
        said["why"] = "decode" if per_token else _why(cell, tokens, text, limits.ids[0], floor)
    return said


def _work(cell: Cell, text: int) -> tuple[int, float, float]:
    """Return (mean visual tokens, FLOPs that a prefill must execute, bytes of weights it must read)."""
    shape, schedule = shape_of(cell.model), cell.schedule
    spans = [] if schedule is None else schedule.spans(shape.layers)
    tokens = sum(span.layers * span.tokens for span in spans if not span.frozen) / shape.layers
    s = tokens + text
    linear = 2 * shape.d * (shape.q + shape.kv) + 3 * shape.d * shape.f
    flops = 2 * shape.layers * (s * linear + shape.q * s * s) + 2 * shape.d * shape.vocab
    weights = (shape.layers * linear + shape.d * shape.vocab) * _BYTES.get(cell.precision, 2.0)
    return math.floor(tokens), flops, weights


def _printed_flops(cell: Cell, table: PublishedTable) -> float:
    """Return the least FLOPs that the row prints for itself, 0 where it prints none."""
    # Low-bit columns may hold operations divided by 4; they are no work of the row's dtype.
    for other in table.cells if cell.precision == "fp16" else ():
        same = (other.row, other.model, other.precision) == (cell.row, cell.model, cell.precision)
        if same and other.quantity == "flops" and not other.ratio and other.part != "vision":
            layers = shape_of(other.model).layers if other.per_layer else 1
            return other.interval(truncated=False)[0] * layers
    return 0.0


def _why(cell: Cell, tokens: int, text: int, hardware: str, floor: float) -> str:
    """Return what holds a cell above its floor: `device`, `host` or `decode`.

    Up to what eager PyTorch takes for the prefill (and 30 % more) it is the slower of device and host;
    beyond that a prefill waits for its host, and anything longer than a prefill has decoded.
    """
    if cell.quantity == "rate":
        return "device"
    # Without a model that can be priced, three times the floor stand for eager kernels.
    host, device = _eager(cell.model, tokens, text, hardware) or (0.0, 3 * floor)
    if cell.value * cell.scale <= 1.3 * max(host, device):
        return "host" if host > device else "device"
    return "host" if cell.part == "prefill" else "decode"


@cache
def _eager(model: str, tokens: int, text: int, hardware: str) -> tuple[float, float] | None:
    """Return the seconds of host and device of a prefill under eager PyTorch, None for bare shapes."""
    from costmodel.calibration import list_calibrations
    from costmodel.estimates import estimate
    from costmodel.models import list_models

    if model not in list_models() or not tokens + text:
        return None
    law = hardware if hardware in list_calibrations() else "generic"
    stage = estimate(
        model,
        hardware,
        visual_tokens=tokens,
        text_tokens=text,
        execution="hf-eager",
        calibration=law,
    ).stages["prefill"]
    return float(stage.host_s), float(stage.device_s)


def _method_bound(possible: list[dict[str, Any]]) -> None:
    """Mark reduced rows that take as long as an unreduced one although their floor is lower."""
    alike = ("quantity", "unit", "precision")
    for said in possible:
        if any(
            all(said[key] == other[key] for key in alike)
            and said["floor_s"] < 0.9 * other["floor_s"]
            and said["value_s"] >= other["value_s"]
            for other in possible
        ):
            said["why"] = "method"
        said["text"] += f"; {said['times_floor']:.2g} times its floor, {said['why']}-bound"
