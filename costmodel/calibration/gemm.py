"""The tile law of matrix products: why latency is a staircase in the token count.

A GEMM (m, k) x (k, n) is cut into tiles of tm x tn outputs. Each SM works on one tile at a time, so
ceil(m/tm) ceil(n/tn) s tiles (s: split of the inner dimension) take whole waves over the SMs:

    tiles = batch ceil(m/tm) ceil(n/tn) s           w = tiles / SMs
    waves = 1 if w <= 1 else ceil(w) - o (ceil(w) - w)
    tile  = (k/s) max(2 tm tn / (e_P P / SMs), (tm a + tn b) / (c BW / SMs)) + t_tile
    T_math = min over tile shapes of waves tile + (s > 1) r 8 s m n / (c BW)
    T_mem = (m k a + n k b + m n y) / (e_B BW)
    t = t0 + (T_math^p + T_mem^p)^(1/p)

with a, b, y bytes per element of the operands and the output. s fills the SMs of the first wave and
is at most MAX_SPLIT, with at least MIN_SPLIT_DEPTH of the inner dimension in each part.

| parameter | unit | meaning |
|---|---|---|
| compute_efficiency e_P | 1 | share of the datasheet peak inside a tile |
| memory_efficiency e_B | 1 | share of the datasheet bandwidth |
| overhead_s t0 | s | launch and drain of one kernel |
| exponent p | 1 | how sharply the two times combine |
| cache_bandwidth_ratio c | 1 | rate at which all SMs together load operand tiles, over BW |
| tail_overlap o | 1 | share of the last wave's idle time that is hidden (0: a full stair) |
| split_cost r | 1 | passes over the fp32 partial sums of a split product |
| tile_overhead_s t_tile | s | filling and draining one tile's pipeline |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.calibration.dtypes import LABELS
from costmodel.calibration.law import combine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costmodel.calibration.parameters import Device

#: Output tiles (rows x columns) that vendor libraries choose from, largest first.
TILES = ((256, 128), (128, 256), (128, 128), (64, 256), (256, 64), (128, 64), (64, 128), (64, 64))
#: Parts that the inner dimension is split in at most, and its length in each part at least.
MAX_SPLIT = 8
MIN_SPLIT_DEPTH = 256
#: Points evaluated at once: eight tile shapes of them stay in a core's cache.
CHUNK = 2048

_TM = np.array([tile[0] for tile in TILES], dtype=float)[:, None]
_TN = np.array([tile[1] for tile in TILES], dtype=float)[:, None]

PARAMETERS = (
    "compute_efficiency",
    "memory_efficiency",
    "overhead_s",
    "exponent",
    "cache_bandwidth_ratio",
    "tail_overlap",
    "split_cost",
    "tile_overhead_s",
)


def gemm_time_s(
    values: Mapping[str, float],
    device: Device,
    dtype: str,
    peak: float,
    m: np.ndarray,
    n: np.ndarray,
    k: np.ndarray,
    batch: np.ndarray,
) -> Any:
    """Return the predicted seconds of products of one-dimensional arrays of shapes.

    Args:
        values: the law's parameters.
        device: SMs and bandwidth.
        dtype: a canonical label, for the bytes per element.
        peak: FLOP/s of the arithmetic it runs at.
        m: rows (tokens), shape (points,).
        n: output features, shape (points,).
        k: input features, shape (points,).
        batch: independent products of that shape, shape (points,).
    """
    points = len(m)
    if points <= CHUNK:
        return _chunk(values, device, dtype, peak, m, n, k, batch)
    out = np.empty(points)
    for start in range(0, points, CHUNK):
        part = slice(start, start + CHUNK)
        out[part] = _chunk(values, device, dtype, peak, m[part], n[part], k[part], batch[part])
    return out


def _chunk(
    values: Mapping[str, float],
    device: Device,
    dtype: str,
    peak: float,
    m: Any,
    n: Any,
    k: Any,
    batch: Any,
) -> Any:
    label = LABELS[dtype]
    units = device.units
    cache = values["cache_bandwidth_ratio"] * device.bandwidth_bytes_per_s
    tiles = np.ceil(m / _TM)
    tiles *= np.ceil(n / _TN)
    tiles *= batch
    np.maximum(tiles, 1.0, out=tiles)
    split = np.floor(units / tiles)
    np.minimum(split, np.minimum(np.floor(k / MIN_SPLIT_DEPTH), MAX_SPLIT), out=split)
    np.maximum(split, 1.0, out=split)
    waves = tiles
    waves *= split
    waves /= units
    whole = np.ceil(waves)
    overlap = values["tail_overlap"]
    # The first wave is never shorter than one tile.
    waves = np.where(whole > 1, whole - overlap * (whole - waves), 1.0)
    per_k = np.maximum(
        2 * units / (values["compute_efficiency"] * peak) * (_TM * _TN),
        units / cache * (_TM * label.operand_bytes + _TN * label.weight_bytes),
    )
    waves *= per_k * (k / split) + values["tile_overhead_s"]
    outputs = m * n * batch
    waves += (values["split_cost"] * 8 / cache) * outputs * np.where(split > 1, split, 0.0)
    math_s = waves.min(axis=0)
    traffic = (m * label.operand_bytes + n * label.weight_bytes) * k * batch
    memory_s = (traffic + outputs * label.output_bytes) / (
        values["memory_efficiency"] * device.bandwidth_bytes_per_s
    )
    time = values["overhead_s"] + combine(math_s, memory_s, values["exponent"])
    # A product without a row or a column is never launched.
    return np.where(outputs * k > 0, time, 0.0)


def waves_of(device: Device, m: Any, n: Any) -> Any:
    """Return the waves that the tile shape with the fewest padded outputs takes, ceil(tiles / SMs).

    It says where the stairs are, not how high; a calibration's correction of one weight matrix is
    interpolated along it.

    Args:
        device: SMs.
        m: rows.
        n: output features.
    """
    area = np.ceil(np.asarray(m) / _TM) * np.ceil(np.asarray(n) / _TN)
    return (np.ceil(area / device.units) * _TM * _TN).min(axis=0)
