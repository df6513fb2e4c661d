"""From a trace's events to its `Explanation`."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from costmodel.quantities import STAGES
from profiling.explaining.calls import calls_of
from profiling.explaining.explanation import Explanation, Family
from profiling.explaining.known import describe_run
from profiling.explaining.layers import find_layers, find_named_layers
from profiling.explaining.naming import (
    ATTENTION,
    OTHER,
    attention_family,
    class_of_kernel,
    gemm_family,
    is_unaligned,
)
from profiling.explaining.roofs import op_rows
from profiling.explaining.stages import ENCODER, place_calls
from profiling.explaining.timeline import timeline
from profiling.records.measurement import TOTAL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from costmodel.calibration import Calibration
    from hardware_specs import HardwareSpec
    from profiling.explaining.calls import Call, Unlinked
    from profiling.explaining.layers import Run
    from profiling.tracing.events import Event, Trace

_ORDER = (*STAGES, ENCODER, TOTAL)


def explained(
    trace: Trace,
    source: str,
    hardware: HardwareSpec | None,
    calibration: Calibration | None,
    notes: Sequence[str] = (),
) -> Explanation:
    """Return what a trace says.

    Args:
        trace: from `profiling.tracing.events`.
        source: its name.
        hardware: the device; None where it is not known.
        calibration: its calibration, or None.
        notes: remarks to begin with.
    """
    calls, unlinked = calls_of(trace)
    runs = find_layers(calls)
    placed = place_calls(calls, runs)
    notes = list(notes)
    linked_us = math.fsum(call.time_us for call in calls)
    works = [work for call in calls for work in call.works] + [item.work for item in unlinked]
    shown = list(runs)
    if not runs:
        shown = _named(calls, unlinked, notes)
    kernels_us = math.fsum(work.length_us for work in works if work.kind != "copy")
    copies_us = math.fsum(work.length_us for work in works if work.kind == "copy")
    classes: dict[str, float] = defaultdict(float)
    for call in calls:
        classes[call.op_class] += call.kernel_us * 1e-6
    free = [item.work for item in unlinked if item.work.kind != "copy"]
    free_s = math.fsum(work.length_us for work in free) * 1e-6
    attributed_s = math.fsum(time for name, time in classes.items() if name != OTHER)
    other_s = free_s + classes.get(OTHER, 0.0)
    found = {name: time for name, time in classes.items() if name != OTHER and time > 0}
    if other_s > 0:
        found[OTHER] = other_s
    by_name: Counter[str] = Counter()
    for work in free:
        by_name[class_of_kernel(work.name) or OTHER] += work.length_us * 1e-6  # type: ignore[assignment]
    launched: dict[int, Event | None] = {id(item.work): item.launch for item in unlinked}
    for call in calls:
        for index, work in enumerate(call.works):
            launched[id(work)] = call.launches[index] if index < len(call.launches) else None
    _remarks(trace, calls, unlinked, linked_us, free_s, notes)
    return Explanation(
        source=source,
        device_names=trace.device_names,
        hardware=hardware,
        calibration=calibration,
        on_cpu=trace.on_cpu,
        kernel_time_s=(kernels_us + copies_us) * 1e-6,
        attributed_time_s=attributed_s,
        unattributed_time_s=other_s,
        copies_time_s=copies_us * 1e-6,
        unlinked_time_s=free_s,
        unlinked_classes=dict(by_name.most_common()),
        layers=tuple(_merged(shown)),
        stages=_stage_times(calls, placed),
        spans=_stage_spans(calls, placed),
        classes=dict(sorted(found.items(), key=lambda item: -item[1])),
        families=_families(works),
        unaligned_time_s=math.fsum(
            work.length_us for work in works if work.kind != "copy" and is_unaligned(work.name)
        )
        * 1e-6,
        time=timeline(trace, works, launched),
        damaged=trace.damaged,
        ops=tuple(op_rows(calls, placed, hardware, calibration)),
        notes=tuple(notes),
        _calls=tuple(calls),
        _placed=tuple(placed),
        _runs=tuple(runs),
    )


def _named(calls: Sequence[Call], unlinked: Sequence[Unlinked], notes: list[str]) -> list[Run]:
    """Return layers by the names of kernels, of the launch (a replayed graph) with the most of them."""
    by_launch: dict[int, list[Event]] = defaultdict(list)
    for item in unlinked:
        if item.work.kind == "kernel":
            by_launch[0 if item.launch is None else id(item.launch)].append(item.work)
    groups = [sorted(works, key=lambda work: work.begin_us) for works in by_launch.values()]
    groups.append([work for call in calls for work in call.works if work.kind != "copy"])
    found = max((find_named_layers(group) for group in groups), key=_layers_in, default=[])
    if found:
        notes.append(
            "no sizes of products were recorded: layers are counted by the names of the kernels, and "
            "their width and tokens are not known (profile with record_shapes=True)"
        )
    return found


def _layers_in(runs: Sequence[Run]) -> int:
    return sum(run.count for run in runs)


def _remarks(
    trace: Trace, calls: Sequence[Call], unlinked: Sequence[Unlinked], linked_us: float, free_s: float,
    notes: list[str],
) -> None:  # fmt: skip
    if trace.damaged:
        notes.append(f"{trace.damaged} events have no usable time and were left out")
    if free_s > 0:
        graphs = {
            id(item.launch) for item in unlinked
            if item.launch is not None and "graph" in item.launch.name.lower()
        }  # fmt: skip
        early = sum(item.launch is None for item in unlinked)
        share = free_s / (free_s + linked_us * 1e-6)
        why = []
        if graphs:
            why.append(f"replayed by {len(graphs)} graph launches, which carry no op")
        if early:
            why.append(
                f"{early} of them launched before the trace began or by what it does not hold"
            )
        notes.append(
            f"{share:.1%} of the device's time is linked to no op"
            + (": " + "; ".join(why) if why else "")
        )
    if trace.on_cpu:
        notes.append("no device work was recorded: the outermost ops of the CPU stand for kernels")
    if calls and not any(call.ops[-1].sizes for call in calls):
        notes.append("input shapes were not recorded: there are no roofs (record_shapes=True)")


def _merged(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return layers that ran several times with the same sizes once, with how often."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for run in runs:
        key = (run.count, run.width, run.tokens, run.batch, run.ffn, run.whole)
        entry = found.setdefault(
            key,
            {"count": run.count, "width": run.width, "tokens": run.tokens, "time_s": 0.0,
             "batch": run.batch, "ffn": run.ffn, "passes": 0, "of": run.whole,
             "says": describe_run(run)},
        )  # fmt: skip
        entry["time_s"] += run.time_us * 1e-6
        entry["passes"] += 1
    return list(found.values())


def _stage_times(calls: Sequence[Call], placed: Sequence[str]) -> dict[str, float]:
    times: dict[str, float] = defaultdict(float)
    for call, stage in zip(calls, placed, strict=True):
        times[stage] += call.time_us * 1e-6
    return {stage: times[stage] for stage in _ORDER if stage in times}


def _stage_spans(calls: Sequence[Call], placed: Sequence[str]) -> dict[str, float]:
    """Return each stage's share of the time line: from the end of what ran before to its own end."""
    pieces = sorted(
        (work.begin_us, work.end_us, stage)
        for call, stage in zip(calls, placed, strict=True)
        for work in call.works
    )
    spans: dict[str, float] = defaultdict(float)
    end = pieces[0][0] if pieces else 0.0
    for _, until, stage in pieces:
        spans[stage] += max(0.0, until - end) * 1e-6
        end = max(end, until)
    return {stage: spans[stage] for stage in _ORDER if stage in spans}


def _families(works: Sequence[Event]) -> tuple[Family, ...]:
    """Return kernels of attention and products by implementation."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for work in works:
        if work.kind != "kernel":
            continue
        kind = class_of_kernel(work.name)
        if kind in ATTENTION:
            name = attention_family(work.name)
            found["attention", name or "another fused kernel"].append(work.length_us * 1e-6)
        elif kind == "gemm":
            name = gemm_family(work.name) or "another library"
            unaligned = ", unaligned" if is_unaligned(work.name) else ""
            found["product", name + unaligned].append(work.length_us * 1e-6)
    rows = (Family(*key, len(times), math.fsum(times)) for key, times in found.items())
    return tuple(sorted(rows, key=lambda row: -row.time_s))
