"""The values of whole families of assumptions at once: families x text lengths x cells.

Per layer with n visual and t text tokens, width d, queries q = h e, keys k e, FFN width f, in MAC:

    linear      (n + t) (2 d q + 2 d k e + m d f)   m FFN matrices; 4 d^2 where grouping is not modelled
    attention   2 q (n + t)^2                       half of it where causal
    frozen      t of the linear work, 2 d k e for each visual token, 2 q t (t + n)

A schedule enters by six sums over its layers, so that every family is arithmetic on arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from costmodel.audits.shapes import shape_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from costmodel.audits.assumptions import Reading
    from costmodel.audits.table import Cell, Schedule

#: Bytes of one KV-cache element, FP16 as in every table.
_KV_BYTES = 2
Array = Any


class Sums(NamedTuple):
    """What a count needs of a schedule: sums over layers, each an array readings x cells.

    Attributes:
        n: visual tokens summed over layers that compute them.
        squares: their squares summed.
        active: such layers.
        frozen: visual tokens summed over frozen layers.
        frozen_layers: such layers.
        last: visual tokens of the last layer.
    """

    n: Array
    squares: Array
    active: Array
    frozen: Array
    frozen_layers: Array
    last: Array


def sums_of(schedule: Schedule, layers: int, reading: Reading, label: float) -> tuple[float, ...]:
    """Return one schedule's sums under one reading."""
    if schedule.kind == "default" and reading.default_schedules == "mean":
        last = schedule.steps[-1]
        tokens = last.tokens * schedule.full if last.share else last.tokens
        return layers * tokens, layers * tokens**2, layers, 0.0, 0, tokens
    spans = schedule.spans(layers, shift=reading.layer_k, rounding=reading.kept_tokens, label=label)
    live = [span for span in spans if not span.frozen]
    held = [span for span in spans if span.frozen]
    return (
        sum(span.layers * span.tokens for span in live),
        sum(span.layers * span.tokens**2 for span in live),
        sum(span.layers for span in live),
        sum(span.layers * span.tokens for span in held),
        sum(span.layers for span in held),
        spans[-1].tokens,
    )


@dataclass(frozen=True, slots=True)
class Counted:
    """Cells, ready to be counted under any family.

    Attributes:
        cells: the cells.
        low: sums at the low end of every label.
        high: at its high end; the same object where no label is rounded.
        base_low: sums of the rows that ratios refer to, None without ratios.
        kv: whether they are bytes of a KV cache.
    """

    cells: tuple[Cell, ...]
    low: Sums
    high: Sums
    base_low: Sums | None
    kv: bool

    def values(self, families: NDArray[np.float64], text: Array, *, high: bool = False) -> Array:
        """Return the printed numbers before rounding: families x text lengths x cells."""
        value = self._whole(families, text, self.high if high else self.low)
        ratios = np.array([cell.ratio for cell in self.cells])
        if self.base_low is not None:
            base = self._whole(families, text, self.base_low)
            with np.errstate(divide="ignore", invalid="ignore"):
                for kind, found in (
                    ("share", value / base),
                    ("saved", 1 - value / base),
                    ("times", base / value),
                ):
                    value = np.where(ratios == kind, found, value)
        scale = np.array([cell.scale for cell in self.cells])
        if self.kv:
            powers = np.array([{1e6: 2**20, 1e9: 2**30}.get(cell.scale, cell.scale)
                               for cell in self.cells])  # fmt: skip
            scale = np.where(families[:, 9, None, None] == 1, powers, scale)
        return value / scale

    def _whole(self, families: NDArray[np.float64], text: Array, sums: Sums) -> Array:
        """Return FLOPs or bytes."""
        shapes = [shape_of(cell.model) for cell in self.cells]
        d, q, kv, f, layers, vocab = (
            np.array([getattr(shape, name) for shape in shapes], dtype=np.float64)
            for name in ("d", "q", "kv", "f", "layers", "vocab")
        )
        columns = [families[:, place, None, None] for place in range(10)]
        ops, ffn, full, gqa, share, head, tower, projector, mean, _ = columns
        way = families[:, 10].astype(int)
        n, squares, active, frozen, frozen_layers, last = (each[way][:, None, :] for each in sums)
        t = np.asarray(text, dtype=np.float64)[None, :, None]
        if self.kv:
            width = np.where(gqa == 1, kv, d)
            return (n + frozen + layers * t) * 2 * width * _KV_BYTES
        keys = np.where(gqa == 1, 2 * d * kv, 2 * d * d)
        linear = np.where(gqa == 1, 2 * d * q, 2 * d * d) + keys + ffn * d * f
        every = active + frozen_layers
        # What text alone costs belongs to no visual token.
        own = np.where(share == 1, 0.0, every * t)
        macs = linear * (n + own) + keys * frozen
        macs = macs + 2 * q * full * (squares + 2 * t * n + own * t)
        if np.any(frozen):
            macs = macs + 2 * q * (full > 0) * t * frozen
        macs = macs + head * (last + t) * d * vocab
        llm, vision, bridge = (
            np.array([cell.part in ("total", part) for cell in self.cells])
            for part in ("llm", "vision", "projector")
        )
        whole = np.array([cell.part == "total" for cell in self.cells])
        images = np.array([cell.images for cell in self.cells])
        lin, att, pro = (
            images * np.array([getattr(shape, name) for shape in shapes])
            for name in ("tower_linear", "tower_attention", "projector")
        )
        macs = llm * macs
        macs = macs + vision * ((tower > 0) * lin + (tower == 2) * att)
        macs = macs + bridge * np.where(whole, projector, 1.0) * pro
        by_layer = np.array([cell.per_layer for cell in self.cells])
        return ops * macs / np.where((mean == 1) | by_layer, layers, 1.0)


def counted(
    cells: Sequence[Cell], bases: Sequence[Schedule | None], ways: Sequence[Reading], *, kv: bool
) -> tuple[Counted, list[Reading]]:
    """Return the cells ready to be counted, and those readings that give different sums."""

    def gather(schedules: Sequence[Any], side: int) -> Array:
        layers = [shape_of(cell.model).layers for cell in cells]
        return np.array(
            [
                [sums_of(s, count, way, side * way.labels)
                 for s, count in zip(schedules, layers, strict=True)]
                for way in ways
            ]
        )  # fmt: skip

    own = [cell.schedule for cell in cells]
    low, high = gather(own, -1), gather(own, 1)
    ratio = any(base is not None for base in bases)
    base = gather([b or s for b, s in zip(bases, own, strict=True)], 0) if ratio else None
    kept: dict[bytes, int] = {}
    for place in range(len(ways)):
        key = low[place].tobytes() + high[place].tobytes()
        kept.setdefault(key if base is None else key + base[place].tobytes(), place)
    chosen = list(kept.values())

    def sums(array: Array) -> Sums:
        return Sums(*np.moveaxis(array[chosen], -1, 0))

    found = Counted(
        tuple(cells), sums(low), sums(low) if np.array_equal(low, high) else sums(high),
        None if base is None else sums(base), kv,
    )  # fmt: skip
    return found, [ways[place] for place in chosen]
