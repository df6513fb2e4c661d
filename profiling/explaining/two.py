"""Two traces, before and after a method: from the cut in tokens to the cut in time.

Had all time followed the tokens, the run after would take (tokens after / tokens before) of the run before.
It takes more, and each part of it says how much:

    lost = after - before x tokens after / tokens before

The parts add up to the whole distance, since each moment of the time line belongs to one: products with
weights, attention, what the method itself runs, the tower, the decode, other ops, what is linked to no op,
copies, and the idle time, in which the device waited for the host or for itself. On a CPU the host is the
device: there the time of an op on next to nothing is the host's share of every op, and an op that took many
times as long as its equals was interrupted by another program: the excess is left out of both runs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from profiling.explaining.calls import shapes
from profiling.explaining.comparison import PARTS, Comparison, Part
from profiling.explaining.naming import ATTENTION, attention_family

if TYPE_CHECKING:
    from profiling.explaining.calls import Call
    from profiling.explaining.explanation import Explanation

#: On a CPU an op on so few elements is nothing but its dispatch.
_NEXT_TO_NOTHING = 1024
#: On a CPU an op that took so many times the median of its equals was interrupted.
_INTERRUPTED = 5.0


def compare_traces(before: Explanation, after: Explanation) -> Comparison:
    """Return where the time of the second trace went, measured against the cut in tokens."""
    tokens = _mean_tokens(before), _mean_tokens(after)
    passes = _passes(before), _passes(after)
    dispatch_us = _dispatch_us(before) if before.on_cpu else 0.0
    excess = [_interruptions(found) if found.on_cpu else {} for found in (before, after)]
    times = [
        _by_part(found, dispatch_us, count, over)
        for found, count, over in zip((before, after), passes, excess, strict=True)
    ]
    interrupted = [math.fsum(over.values()) * 1e-6 for over in excess]
    ratio = tokens[1] / tokens[0] if tokens[0] and tokens[1] is not None else 1.0
    parts = tuple(
        Part(name, times[0][name], times[1][name], times[0][name] * ratio,
             times[1][name] - times[0][name] * ratio)
        for name in PARTS
        if times[0].get(name) or times[1].get(name)
    )  # fmt: skip
    fused = [_fused(found) / count for found, count in zip((before, after), passes, strict=True)]
    written = [
        _written(found) / count for found, count in zip((before, after), passes, strict=True)
    ]
    more_written = max(written[1] - written[0], 0)
    lost = round(min(max(fused[0] - fused[1], 0), more_written))
    families = (
        attention_family(work.name)
        for call in before._calls
        if call.attention
        for work in call.works
    )
    return Comparison(
        source=after.source,
        tokens_before=tokens[0],
        tokens_after=tokens[1],
        time_before_s=(before.time.span_s - interrupted[0]) / passes[0],
        time_after_s=(after.time.span_s - interrupted[1]) / passes[1],
        parts=parts,
        fused_lost=lost,
        fused_kernel=next((name for name in families if name), "") if not before.on_cpu else "",
        written_beside=round(more_written) - lost if fused[1] else 0,
        launches_before=round(before.time.launches / passes[0]),
        launches_after=round(after.time.launches / passes[1]),
        interrupted_s=(interrupted[0] / passes[0], interrupted[1] / passes[1]),
    )


def _main_runs(found: Explanation) -> list[Any]:
    """Return the runs of layers whose tokens a method cuts: the prefill's, else those there are."""
    stages = [(run, found._placed[run.begin]) for run in found._runs]
    for kind in ("prefill", "encoder", "vision", "decode"):
        chosen = [run for run, stage in stages if stage == kind]
        if chosen:
            return chosen
    return [run for run, _ in stages]


def _mean_tokens(found: Explanation) -> float | None:
    runs = [run for run in _main_runs(found) if run.tokens is not None]
    layers = sum(run.count for run in runs)
    return sum(run.count * run.tokens for run in runs) / layers if layers else None


def _passes(found: Explanation) -> int:
    runs = _main_runs(found)
    return max(1, round(sum(run.count for run in runs) / runs[0].whole)) if runs else 1


def _dispatch_us(found: Explanation) -> float:
    """Return the microseconds that an op on next to nothing takes."""
    times = sorted(
        call.time_us
        for call in found._calls
        if call.op_class == "pointwise"
        and all(math.prod(size) <= _NEXT_TO_NOTHING for size in shapes(call.ops[-1]))
    ) or sorted(call.time_us for call in found._calls)
    return times[len(times) // 4] if times else 0.0


def _interruptions(found: Explanation) -> dict[int, float]:
    """Return by place the microseconds that a call took beyond the median of its equals."""
    equals: dict[Any, list[Call]] = defaultdict(list)
    for call in found._calls:
        equals[call.name, call.ops[-1].sizes].append(call)
    excess: dict[int, float] = {}
    for group in equals.values():
        usual = sorted(call.time_us for call in group)[(len(group) - 1) // 2]
        for call in group:
            if len(group) > 2 and call.time_us > max(_INTERRUPTED * usual, usual + 100):
                excess[call.place] = call.time_us - usual
    return excess


def _by_part(
    found: Explanation, dispatch_us: float, passes: int, over: dict[int, float]
) -> dict[str, float]:
    times: dict[str, float] = defaultdict(float)
    for call, stage in zip(found._calls, found._placed, strict=True):
        spent = call.kernel_us - over.get(call.place, 0.0)
        own = min(dispatch_us, spent)
        times["host"] += own * 1e-6
        times[_part_of(call, stage)] += (spent - own) * 1e-6
    times["unattributed"] += found.unlinked_time_s
    times["copies"] += found.copies_time_s
    times["host"] += found.time.host_idle_s
    times["device_gaps"] += found.idle_s - found.time.host_idle_s
    times["overlap"] = found.time.busy_s - found.kernel_time_s
    if abs(times["overlap"]) < 1e-3 * found.kernel_time_s:
        times["overlap"] = 0.0
    return defaultdict(float, {name: time / passes for name, time in times.items()})


def _part_of(call: Call, stage: str) -> str:
    if stage == "reduction":
        return "method"
    if stage in ("vision", "projector", "decode"):
        # Sorting and picking inside the tower is no tower's work.
        return "method" if call.op_class == "select" and stage == "vision" else stage
    if stage == "total":
        return "outside"
    if call.op_class in ATTENTION or call.scores:
        return "attention"
    if call.op_class == "select":
        return "method"
    return "linears" if call.op_class in ("gemm", "conv") else "other_ops"


def _fused(found: Explanation) -> int:
    """Return the calls of a fused attention, with sizes or without."""
    return sum(
        call.op_class in ATTENTION and call.product is None and not call.scores
        for call in found._calls
    )


def _written(found: Explanation) -> int:
    """Return the calls of a softmax over written scores of many queries: one for each such attention."""
    softmax = [call for call in found._calls if call.op_class == "softmax" and call.scores]
    return sum(
        # Where sizes were not recorded, queries cannot be counted.
        not call.ops[-1].sizes
        or any(len(size) > 2 and size[-2] > 1 for size in shapes(call.ops[-1]))
        for call in softmax
    )
