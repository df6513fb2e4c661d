"""The tile law of matrix products: why latency is a staircase in the token count.

A GEMM (m, k) x (k, n) is cut into tiles of tm x tn outputs. Each SM works on one tile at a time, so
the tiles take whole waves over the SMs. With a, b, y bytes per element of the two operands and the
output, and s parts of the inner dimension:

    tiles  = batch ceil(m/tm) ceil(n/tn) s                        w = tiles / SMs
    waves  = 1 if w <= 1 else ceil(w) - o (ceil(w) - w)
    step   = max(2 tm tn / (e_P P (tm tn / A)^g / SMs), (tm a + tn b) / (c BW / SMs))
    T_tile = (k/s) step + r tm tn y / (BW / SMs)
    T_math = min over tiles, split or not, of
             waves T_tile + (s > 1) (t_split + 16 s m n / (c BW))
    T_mem  = (m k a + n k b + m n y) / (e_B BW)
    t = t0 + m t_row + q 3 m k / BW + (T_math^p + T_mem^p)^(1/p)

| parameter | unit | meaning |
|---|---|---|
| compute_efficiency e_P | 1 | share of the datasheet peak inside a large tile |
| memory_efficiency e_B | 1 | share of the datasheet bandwidth |
| overhead_s t0 | s | launch and drain of one kernel |
| exponent p | 1 | how sharply the two times combine |
| cache_bandwidth_ratio c | 1 | rate at which all SMs together load operand tiles, over BW |
| tail_overlap o | 1 | share of the last wave's idle time that is hidden (0: a full stair) |
| epilogue_cost r | 1 | passes over a tile's outputs that nothing hides, at the SM's share of BW |
| split_overhead_s t_split | s | summing the parts of a split inner dimension |
| small_tile_loss g | 1 | exponent with which a smaller tile computes less efficiently |
| row_overhead_s t_row | s | quantising activations: per row |
| quantise_cost q | 1 | quantising activations: passes over 2 bytes read and 1 written per element |
| ragged_cost | 1 | factor on T_math above 256 rows that are no multiple of 16 |

A is the area of the family's largest tile. Which tiles there are, and who picks among them, is the
kernel family (`FAMILIES`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from costmodel.calibration.dtypes import LABELS
from costmodel.calibration.law import combine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costmodel.calibration.parameters import Device

#: Points evaluated at once: all tiles of them stay in a core's cache.
CHUNK = 2048
#: The shortest part of a split inner dimension.
SPLIT_DEPTH = 256
#: Bytes of partial sums per split output: four written and read, at half the operands' rate.
SPLIT_BYTES = 16.0
#: Share of the last cache that a benchmark's weights may fill and still be read from it whole.
WARM = 0.5
#: Rows above which, and the multiple of rows at which, `ragged_cost` applies.
RAGGED_ROWS, RAGGED_MULTIPLE = 256, 16


class Family(NamedTuple):
    """The kernels one library has, and how it picks.

    Attributes:
        tiles: rows x columns of the output tiles.
        max_split: parts of the inner dimension at most; 1 never splits.
        by_rows: the tile's height follows from m alone (the smallest that holds it), as fixed
            dispatch tables do; otherwise the fastest tile is taken.
    """

    tiles: tuple[tuple[int, int], ...]
    max_split: int
    by_rows: bool


FAMILIES: dict[str, Family] = {
    # cuBLAS and cuBLASLt heuristics: close to the fastest of a few shapes.
    "library": Family(
        ((256, 128), (128, 256), (128, 128), (128, 64), (64, 128), (64, 64)), 16, by_rows=False
    ),
    # Kernels that expand weights in registers: narrow ones for few rows, chosen by measuring.
    "weight-only": Family(((128, 128), (64, 128), (32, 128), (16, 128)), 8, by_rows=False),
    # Serving engines' FP8 kernels: a table from rows to tile height.
    "by-rows": Family(
        ((64, 64), (64, 128), (128, 64), (128, 128), (256, 64), (256, 128)), 1, by_rows=True
    ),
    # No tiles at all: devices whose cores share one product finely.
    "smooth": Family((), 1, by_rows=False),
}


def _columns(family: Family) -> tuple[np.ndarray, np.ndarray]:
    rows = np.array([tile[0] for tile in family.tiles], dtype=float)[:, None]
    return rows, np.array([tile[1] for tile in family.tiles], dtype=float)[:, None]


_TILES = {name: _columns(family) for name, family in FAMILIES.items()}


class TileLaw(NamedTuple):
    """The law of one class of products in one dtype on one device.

    Attributes:
        values: the law's parameters.
        device: the datasheet's SMs and bandwidth.
        family: a key of `FAMILIES`.
        dtype: a canonical label, for the bytes per element.
        peak: FLOP/s of the arithmetic it runs at.
    """

    values: Mapping[str, float]
    device: Device
    family: str
    dtype: str
    peak: float


def gemm_time_s(law: TileLaw, m: Any, n: Any, k: Any, batch: Any, copies: Any = None) -> Any:
    """Return the predicted seconds of products of one-dimensional arrays of shapes.

    Args:
        law: the law.
        m: rows (tokens), shape (points,).
        n: output features, shape (points,).
        k: input features, shape (points,).
        batch: independent products of that shape, shape (points,).
        copies: copies of the weights that a benchmark goes round, shape (points,); None are a model's,
            which no cache holds.
    """
    points = len(m)
    math_s = np.empty(points)
    for start in range(0, points, CHUNK):
        s = slice(start, start + CHUNK)
        math_s[s] = tiled_s(law, m[s], n[s], k[s], batch[s])
    cold = 1.0 if copies is None else 1.0 - warm_share(law.device, law.dtype, n, k, copies)
    return Finish(law, n, k, batch, cold).time_s(m, math_s)


def warm_share(device: Device, dtype: str, n: Any, k: Any, copies: Any) -> Any:
    """Return the share of weights that a benchmark finds in the last cache.

    All where its copies fill `WARM` of the cache or less, none where they exceed it. Arguments as
    `gemm_time_s`.
    """
    filled = copies * LABELS[dtype].weight_bytes * n * k / (device.l2_bytes or 1.0)
    return np.clip((1.0 - filled) / (1.0 - WARM), 0.0, 1.0)


class Finish:
    """From the arithmetic of products to their seconds: bytes, overheads, and what is never launched.

    Args:
        law: the law.
        n: output features, a number or an array, like the others.
        k: input features.
        batch: independent products.
        cold: the share of the weights that memory has to deliver.
    """

    def __init__(self, law: TileLaw, n: Any, k: Any, batch: Any, cold: Any = 1.0) -> None:
        values, device, _, dtype, _ = law
        label = LABELS[dtype]
        bandwidth = device.bandwidth_bytes_per_s
        self._ragged = values.get("ragged_cost", 1.0)
        rate = values["memory_efficiency"] * bandwidth
        self._row_s = (k * label.operand_bytes + n * label.output_bytes) * batch / rate
        self._weights_s = n * label.weight_bytes * cold * k * batch / rate
        self._exponent, self._overhead = values["exponent"], values["overhead_s"]
        per_row = values.get("row_overhead_s", 0.0)
        per_element = values.get("quantise_cost", 0.0) * 3.0 / bandwidth
        self._per_row = batch * (per_row + per_element * k) if per_row or per_element else None
        # A product without a row or a column is never launched.
        self._runs = n * k * batch > 0

    def time_s(self, m: Any, math_s: Any) -> Any:
        """Return the seconds of m rows whose arithmetic takes T_math; numbers or arrays."""
        if self._ragged != 1.0:
            ragged = (m > RAGGED_ROWS) & (m % RAGGED_MULTIPLE > 0)
            math_s = math_s * (1.0 + (self._ragged - 1.0) * ragged)
        time = combine(math_s, m * self._row_s + self._weights_s, self._exponent)
        if self._per_row is not None:
            time = time + m * self._per_row
        return (self._overhead + time) * ((m > 0) & self._runs)


def tiled_s(law: TileLaw, m: Any, n: Any, k: Any, batch: Any) -> Any:
    """Return T_math of arrays of shapes, shape (points,); arguments as `gemm_time_s`."""
    values, device, family, dtype, peak = law
    if not FAMILIES[family].tiles:
        return m * n * batch * k * (2.0 / (values["compute_efficiency"] * peak))
    # The intermediates have shape (tiles, points).
    label = LABELS[dtype]
    rule = FAMILIES[family]
    rows, columns = _TILES[family]
    units = device.units
    cache = values["cache_bandwidth_ratio"] * device.bandwidth_bytes_per_s
    area = rows * columns
    tiles = np.ceil(m / rows)
    tiles *= np.ceil(n / columns)
    tiles *= batch
    np.maximum(tiles, 1.0, out=tiles)
    # waves <- ceil(w) - o (ceil(w) - w), and the only wave is never shorter than one tile.
    overlap = values["tail_overlap"]
    waves = tiles / units
    time = np.ceil(waves)
    only = time <= 1
    waves *= overlap
    time *= 1.0 - overlap
    time += waves
    time[only] = 1.0
    efficiency = values["compute_efficiency"] * (area / area.max()) ** values["small_tile_loss"]
    step = np.maximum(
        2.0 * units / peak * area / efficiency,
        units / cache * (rows * label.operand_bytes + columns * label.weight_bytes),
    )
    epilogue = values["epilogue_cost"] * label.output_bytes * units / device.bandwidth_bytes_per_s
    inner = step * k
    epilogue = epilogue * area
    time *= inner + epilogue
    if rule.max_split > 1:
        split = np.floor(units / tiles)
        np.minimum(split, np.minimum(np.floor(k / SPLIT_DEPTH), rule.max_split), out=split)
        np.maximum(split, 1.0, out=split)
        # All parts of a split product fit into one wave, and unsplit it takes one wave too.
        inner /= split
        inner += epilogue + values["split_overhead_s"]
        inner += (SPLIT_BYTES / cache) * (m * n * batch) * split
        np.minimum(time, inner, out=time, where=split > 1)
    if rule.by_rows:
        height = 2.0 ** np.ceil(np.log2(np.maximum(m, 1.0)))
        time[rows != np.clip(height, rows.min(), rows.max())] = np.inf
    return time.min(axis=0)
