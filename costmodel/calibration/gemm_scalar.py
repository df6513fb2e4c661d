"""The tile law for one product, in plain Python.

A single estimate asks for two dozen products one by one, and numpy's overhead on arrays of one
element is ten times the arithmetic. `costmodel.calibration.gemm` documents the law; a test holds the
two together.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from costmodel.calibration.dtypes import LABELS
from costmodel.calibration.gemm import (
    FAMILIES,
    RAGGED_MULTIPLE,
    RAGGED_ROWS,
    SPLIT_BYTES,
    SPLIT_DEPTH,
    Family,
)
from costmodel.calibration.law import HARD_EXPONENT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costmodel.calibration.dtypes import Label
    from costmodel.calibration.parameters import Device


def gemm_scalar_s(
    values: Mapping[str, float],
    device: Device,
    family: str,
    dtype: str,
    peak: float,
    m: float,
    n: float,
    k: float,
    batch: float,
) -> float:
    """Return the predicted seconds of one product; the arguments are `gemm_time_s`'s, one each."""
    outputs = m * n * batch
    if outputs * k <= 0:
        return 0.0
    label = LABELS[dtype]
    bandwidth = device.bandwidth_bytes_per_s
    rule = FAMILIES[family]
    if rule.tiles:
        math_s = _tiled(values, device, rule, label, peak, m, n, k, batch)
    else:
        math_s = outputs * k * (2.0 / (values["compute_efficiency"] * peak))
    if m > RAGGED_ROWS and m % RAGGED_MULTIPLE > 0:
        math_s *= values.get("ragged_cost", 1.0)
    moved = (m * label.operand_bytes + n * label.weight_bytes) * k * batch
    moved += outputs * label.output_bytes
    memory_s = moved / (values["memory_efficiency"] * bandwidth)
    high, low, p = max(math_s, memory_s), min(math_s, memory_s), values["exponent"]
    time = high if p >= HARD_EXPONENT else high * (1.0 + (low / high) ** p) ** (1.0 / p)
    per_element = values.get("quantise_cost", 0.0) * 3.0 / bandwidth
    time += m * batch * (values.get("row_overhead_s", 0.0) + per_element * k)
    return values["overhead_s"] + time


def _tiled(
    values: Mapping[str, float],
    device: Device,
    rule: Family,
    label: Label,
    peak: float,
    m: float,
    n: float,
    k: float,
    batch: float,
) -> float:
    units = device.units
    cache = values["cache_bandwidth_ratio"] * device.bandwidth_bytes_per_s
    overlap, loss = values["tail_overlap"], values["small_tile_loss"]
    math_rate = 2.0 * units / peak / values["compute_efficiency"]
    largest = max(rows * columns for rows, columns in rule.tiles)
    finish = values["epilogue_cost"] * label.output_bytes * units / device.bandwidth_bytes_per_s
    height = 0.0
    if rule.by_rows:
        heights = [rows for rows, _ in rule.tiles]
        height = min(max(2.0 ** math.ceil(math.log2(max(m, 1.0))), min(heights)), max(heights))
    best = math.inf
    for rows, columns in rule.tiles:
        if rule.by_rows and rows != height:
            continue
        tiles = max(math.ceil(m / rows) * math.ceil(n / columns) * batch, 1.0)
        waves = tiles / units
        whole = math.ceil(waves)
        waves = 1.0 if whole <= 1 else whole * (1.0 - overlap) + waves * overlap
        area = rows * columns
        step = max(
            math_rate * area / (area / largest) ** loss,
            units / cache * (rows * label.operand_bytes + columns * label.weight_bytes),
        )
        epilogue = finish * area
        time = waves * (step * k + epilogue)
        if rule.max_split > 1:
            split = min(units // tiles, k // SPLIT_DEPTH, rule.max_split)
            if split > 1:
                parts = values["split_overhead_s"] + SPLIT_BYTES / cache * m * n * batch * split
                time = min(time, step * k / split + epilogue + parts)
        best = min(best, time)
    return best
