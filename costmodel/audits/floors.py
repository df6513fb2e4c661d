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
from typing import TYPE_CHECKING, Any

from costmodel.audits.shapes import shape_of
from costmodel.precision.arithmetic import computes, matrix_peak
from hardware_specs import get_hardware, list_hardware

if TYPE_CHECKING:
    from costmodel.audits.table import Cell, PublishedTable
    from hardware_specs import HardwareSpec

MEASURED = ("time", "rate", "memory")
#: Parts sold under another name with the same arithmetic and no more bandwidth.
_SOLD_AS = {"a800": "a100", "h800": "h100", "4090d": "4090", "h20": "h20"}
_BYTES = {"fp16": 2.0, "bf16": 2.0, "fp32": 4.0, "w8a8": 1.0, "int8": 1.0, "fp8": 1.0, "w4a16": 0.5}


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
    """Return (impossible cells, possible ones with how far above the floor they are, remarks).

    Args:
        table: the table.
        hardware: the device; None takes what the table says of it.
    """
    cells = [
        cell
        for cell in table.cells
        if cell.quantity in MEASURED and not cell.ratio and cell.value > 0
    ]
    if not cells:
        return [], [], []
    named = hardware or " ".join(table.about.get(key, "") for key in ("hardware", "device", "says"))
    ids = devices_named(named)
    if not ids:
        return [], [], ["measured cells have no floor: no device is named; give --hardware"]
    devices = [get_hardware(name) for name in ids]
    impossible: list[dict[str, Any]] = []
    possible: list[dict[str, Any]] = []
    remarks: list[str] = []
    for cell in cells:
        if cell.schedule is None or cell.schedule.kind == "inferred":
            continue
        said = _judge(cell, table, devices)
        if said is not None:
            (impossible if said["impossible"] else possible).append(said)
    _method_bound(possible)
    if len(ids) > 1:
        remarks.append(f"the device may be {', '.join(ids)}: the fastest sets the floor")
    return impossible, possible, remarks


def _work(cell: Cell, text: int) -> tuple[float, float]:
    """Return (FLOPs that a prefill must execute, bytes of weights it must read)."""
    shape, schedule = shape_of(cell.model), cell.schedule
    spans = [] if schedule is None else schedule.spans(shape.layers)
    tokens = sum(span.layers * span.tokens for span in spans if not span.frozen) / shape.layers
    s = tokens + text
    linear = 2 * shape.d * (shape.q + shape.kv) + 3 * shape.d * shape.f
    flops = 2 * shape.layers * (s * linear + shape.q * s * s) + 2 * shape.d * shape.vocab
    weights = (shape.layers * linear + shape.d * shape.vocab) * _BYTES.get(cell.precision, 2.0)
    return flops, weights


def _judge(cell: Cell, table: PublishedTable, devices: list[HardwareSpec]) -> dict[str, Any] | None:
    """Return what a measured cell is worth, None where nothing can be said of it."""
    if cell.part not in ("total", "llm", "prefill"):
        return None
    flops, weights = _work(cell, table.text_tokens or 0)
    printed = _printed_flops(cell, table)
    dtype = cell.precision if cell.precision in _BYTES else "fp16"
    peak = max(
        (matrix_peak(each, dtype) for each in devices if computes(each, dtype)), default=None
    )
    bandwidth = max(each.bandwidth_bytes_per_s for each in devices)
    capacity = max((each.memory_bytes or 0 for each in devices), default=0)
    said: dict[str, Any] = {
        "cell": str(cell), "row": cell.row, "quantity": cell.quantity, "printed": cell.printed,
        "unit": cell.unit, "hardware": [each.id for each in devices], "precision": cell.precision,
    }  # fmt: skip
    low, high = cell.interval(truncated=False)
    if cell.quantity == "memory":
        over = bool(capacity) and low > capacity
        said |= {"floor": weights / cell.scale, "floor_bytes": weights, "bound": "weights"}
        said["impossible"] = over or high < weights
        said["text"] = (
            f"{cell}: the device has {capacity / cell.scale:.4g} {cell.unit}" if over
            else f"{cell}: the weights alone take {weights / cell.scale:.4g} {cell.unit}"
        )  # fmt: skip
        return said if said["impossible"] else None
    if peak is None:
        return None
    by_flops, by_bytes = max(flops, printed) / peak, weights / bandwidth
    source = "the printed" if printed > flops else "at least"
    work = f"{source} {max(flops, printed) / 1e12:.3g} TFLOP at {peak / 1e12:.4g} TFLOP/s"
    if cell.quantity == "rate":
        token = cell.unit.startswith("token")
        floor, seconds = (by_bytes if token else by_flops), 1 / max(high, 1e-300)
        work = f"{weights / 1e9:.3g} GB of weights at {bandwidth / 1e9:.4g} GB/s" if token else work
        shown = 1 / floor / cell.scale
        said |= {"bound": "memory" if token else "compute"}
        limit = "at most"
    else:
        floor, seconds = max(by_flops, by_bytes), high
        if by_bytes > by_flops:
            work = f"{weights / 1e9:.3g} GB of weights at {bandwidth / 1e9:.4g} GB/s"
        shown, limit = floor / cell.scale, "at least"
        said |= {"bound": "memory" if by_bytes > by_flops else "compute"}
    said |= {"floor": shown, "floor_s": floor, "impossible": seconds < floor}
    said["text"] = f"{cell}: {limit} {shown:.4g} {cell.unit} ({work})"
    if said["impossible"]:
        return said
    times = (1 / cell.value if cell.quantity == "rate" else cell.value * cell.scale) / floor
    said |= {"times_floor": times, "why": _why(cell, table, devices)}
    said["value_s"] = times * floor
    return said


def _printed_flops(cell: Cell, table: PublishedTable) -> float:
    """Return the least FLOPs that the row prints for itself, 0 where it prints none."""
    for other in table.cells:
        same = (other.row, other.model, other.precision) == (cell.row, cell.model, cell.precision)
        if same and other.quantity == "flops" and not other.ratio and other.part != "vision":
            layers = shape_of(other.model).layers if other.per_layer else 1
            # INT4 columns may hold operations divided by 4; they are no work of the row's dtype.
            return other.interval(truncated=False)[0] * layers if cell.precision == "fp16" else 0.0
    return 0.0


def _why(cell: Cell, table: PublishedTable, devices: list[HardwareSpec]) -> str:
    """Return what holds a cell above its floor: `device`, `host` or `decode`.

    Up to what eager PyTorch takes for the prefill (and 30 % more) it is the slower of device and host;
    beyond that a prefill waits for its host, and anything longer than a prefill has decoded.
    """
    if cell.quantity == "rate":
        return "decode" if cell.unit.startswith("token") else "device"
    host, device = _eager(cell, table.text_tokens or 0, devices[0].id)
    if cell.value * cell.scale <= 1.3 * max(host, device):
        return "host" if host > device else "device"
    return "host" if cell.part == "prefill" else "decode"


@cache
def _eager_stage(model: str, tokens: int, text: int, hardware: str) -> tuple[float, float]:
    from costmodel.calibration import list_calibrations
    from costmodel.estimates import estimate

    law = hardware if hardware in list_calibrations() else "generic"
    cost = estimate(model, hardware, visual_tokens=tokens, text_tokens=text,
                    execution="hf-eager", calibration=law)  # fmt: skip
    stage = cost.stages["prefill"]
    return float(stage.host_s), float(stage.device_s)


def _eager(cell: Cell, text: int, hardware: str) -> tuple[float, float]:
    """Return the seconds of host and device of the prefill under eager PyTorch."""
    schedule = cell.schedule
    layers = shape_of(cell.model).layers
    spans = [] if schedule is None else schedule.spans(layers)
    mean = math.floor(sum(span.layers * span.tokens for span in spans) / layers)
    return _eager_stage(cell.model, mean, text, hardware)


def _method_bound(possible: list[dict[str, Any]]) -> None:
    """Mark reduced rows that take as long as an unreduced one although their floor is lower."""
    for said in possible:
        for other in possible:
            same = all(said[key] == other[key] for key in ("quantity", "unit", "precision"))
            less_work = said["floor_s"] < 0.9 * other["floor_s"]
            if same and less_work and said["value_s"] >= other["value_s"]:
                said["why"] = "method"
    for said in possible:
        said["text"] += f"; {said['times_floor']:.2g} times its floor, {said['why']}-bound"
