"""An estimate as a timeline in Chrome's trace format, which Perfetto and chrome://tracing open.

Each stage has a track of its own: the stage, its decode steps and layers in it, their ops in these. A
predicted timeline stands beside one that a profiler recorded, op for op. Stages follow each other: ops of a
reduction inside the language model are in the track of the reduction, which is drawn before the prefill.

The format: "Trace Event Format", https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from costmodel.result import Estimate, OpRow

#: Beyond so many executions of ops a stage's ops are drawn once each, all their executions together.
MOST_EVENTS = 100_000
_SPAN = re.compile(r"\[(\d+):(\d+)\]\Z")


def timeline(cost: Estimate) -> dict[str, Any]:
    """Return the JSON document of a trace: complete events (`ph: X`), times in microseconds.

    A stage's event lasts the stage's time, an op's event the op's; where launching or waiting for the host
    takes longer than the device computes, the difference lies in gaps of one length after each kernel.
    Every time is a whole number of nanoseconds.

    Raises:
        UnsupportedError: an estimate without times, as conventions give.

    >>> from costmodel import estimate
    >>> cost = estimate("llava-1.5-7b", "nvidia-l4")
    >>> events = timeline(cost)["traceEvents"]
    >>> spans = [event for event in events if event["cat"] == "stage"]
    >>> [event["name"] for event in spans], round(sum(event["dur"] for event in spans) / 1e6, 9)
    (['vision', 'projector', 'prefill'], 0.199987187)
    >>> cost.totals.time_s
    0.199987187...
    """
    if cost.totals.time_s is None:
        raise UnsupportedError("a timeline needs times, and this convention counts none")
    given = cost.inputs
    trace = _Trace(f"predicted: {given['model']} {given['precision']} on {given['hardware']}")
    start = 0.0
    for number, (name, stage) in enumerate(cost.stages.items(), 1):
        if not stage.time_s:
            continue
        rows = [row for row in cost.ops if row.stage == name]
        kernels = float(stage.kernels or 1)
        waited = max(0.0, float(stage.time_s) - sum(row.time_s or 0.0 for row in rows)) / kernels
        trace.track = number
        trace.named(name)
        end = start + float(stage.time_s)
        trace.add(name, "stage", start, end, bound=stage.bound, kernels=stage.kernels,
                  low_ms=_ms(stage.time_low_s), high_ms=_ms(stage.time_high_s),
                  ideal_ms=_ms(stage.ideal_time_s))  # fmt: skip
        steps = int(given["output_tokens"]) if name == "decode" else 1
        _stage(trace, rows, start, waited, steps)
        start = end
    return {
        "displayTimeUnit": "ms",
        "otherData": {name: str(given[name]) for name in ("model", "hardware", "precision", "method",
                                                          "execution", "batch_size", "calibration")},
        "traceEvents": trace.events,
    }  # fmt: skip


class _Trace:
    """Events in the making; one process, one thread per track."""

    def __init__(self, process: str) -> None:
        self.events: list[dict[str, Any]] = []
        self.track = 0
        self._said("process_name", process)

    def _said(self, what: str, name: str) -> None:
        self.events.append(
            {"ph": "M", "cat": "__metadata", "pid": 1, "tid": self.track, "ts": 0, "name": what,
             "args": {"name": name}}
        )  # fmt: skip

    def named(self, name: str) -> None:
        self._said("thread_name", name)

    def add(self, name: str, category: str, start: float, end: float, **arguments: Any) -> None:
        # Ends are rounded, not lengths: events that touch still do, and what lies in another stays there.
        first, last = round(start * 1e9), round(end * 1e9)
        self.events.append(
            {"ph": "X", "cat": category, "pid": 1, "tid": self.track, "name": name, "ts": first / 1e3,
             "dur": (last - first) / 1e3, "args": arguments}
        )  # fmt: skip


def _stage(trace: _Trace, rows: Sequence[OpRow], start: float, waited: float, steps: int) -> None:
    """Add a stage's steps, layers and ops, from `start` on."""
    counts = [int(row.count or 1) for row in rows]
    if sum(counts) > MOST_EVENTS or any(count % steps for count in counts):
        for row in rows:
            start = _op(trace, row, start, waited, int(row.count or 1))
        return
    for step in range(steps):
        begun, place = start, len(trace.events)
        for layer, ops in _layers(rows, steps):
            opened, inside = start, len(trace.events)
            for row in ops:
                start = _op(trace, row, start, waited, 1)
            if layer:
                trace.add(layer, "layer", opened, start)
                trace.events.insert(inside, trace.events.pop())
        if steps > 1:
            trace.add(f"step {step}", "step", begun, start)
            trace.events.insert(place, trace.events.pop())


def _layers(rows: Sequence[OpRow], steps: int) -> Iterator[tuple[str, list[OpRow]]]:
    """Yield the ops in the order of the layers, with the layer's name; `` outside layers."""

    def alike(row: OpRow) -> tuple[str, int]:
        return row.name.partition("[")[2], int(row.count or 1) // steps

    for (label, times), group in groupby(rows, alike):
        ops = list(group)
        span = _SPAN.search(ops[0].name)
        if span is None and times == 1:
            yield "", ops
            continue
        first = 0 if span is None else int(span[1])
        kind = f" [{label}" if label and span is None else ""
        for layer in range(first, first + times):
            yield f"layer {layer}{kind}", ops


def _op(trace: _Trace, row: OpRow, start: float, waited: float, times: int) -> float:
    """Add `times` executions of an op as one event; return when the next one may start."""
    count = int(row.count or 1)
    lasts = (row.time_s or 0.0) * times / count
    trace.add(
        row.name if times == 1 else f"{row.name} x {times}", "op", start, start + lasts,
        op_class=row.op_class, dtype=row.dtype, flops=_each(row.flops, count, times),
        bytes=_each(row.hbm_bytes, count, times), bound=row.bound, provenance=row.provenance,
    )  # fmt: skip
    return start + lasts + waited * (row.kernels or 0) * times / count


def _each(value: Any, count: int, times: int) -> float | None:
    return None if value is None else float(value) * times / count


def _ms(seconds: Any) -> float | None:
    return None if seconds is None else float(seconds) * 1e3
