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
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from profiling.explaining.calls import shapes
from profiling.explaining.naming import ATTENTION, attention_family

if TYPE_CHECKING:
    from profiling.explaining.calls import Call
    from profiling.explaining.explanation import Explanation

#: The parts in the order they are stacked, in words.
PARTS = {
    "linears": "products with weights of the language model",
    "attention": "attention of the language model",
    "method": "the method's own work",
    "other_ops": "norms, pointwise ops and copies of the language model",
    "vision": "the vision tower",
    "projector": "the projector",
    "decode": "the decode steps",
    "outside": "work outside every stage",
    "unattributed": "work linked to no op",
    "copies": "copies of memory",
    "host": "waiting for the host",
    "device_gaps": "gaps of the device's own",
    "overlap": "streams that ran at the same time",
}
#: A further reason is named if it is at least this share of what was lost.
_WORTH_NAMING = 0.1
#: A part of the time after that is more than this is named, whatever it was before.
_MOSTLY = 0.5
#: On a CPU an op on so few elements is nothing but its dispatch.
_NEXT_TO_NOTHING = 1024
#: On a CPU an op that took so many times the median of its equals was interrupted.
_INTERRUPTED = 5.0


@dataclass(frozen=True, slots=True)
class Part:
    """One part of both runs, in seconds.

    Attributes:
        name: a key of `PARTS`.
        before_s: in the first trace.
        after_s: in the second.
        expected_s: in the second, had it followed the tokens.
        lost_s: after less expected.
    """

    name: str
    before_s: float
    after_s: float
    expected_s: float
    lost_s: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two traces side by side, each by one pass of its prefill.

    Attributes:
        source: the second trace's name.
        tokens_before: mean tokens of the layers of the first; None where sizes were not recorded.
        tokens_after: of the second.
        time_before_s: the time line of the first, by pass.
        time_after_s: of the second.
        parts: where the time went; `lost_s` adds up to time_after_s - expected.
        fused_lost: layers whose attention was fused before and writes its scores after.
        fused_kernel: what computed it before.
        written_beside: scores written out more than before, while attention stayed fused.
        launches_before: device work handed over, by pass.
        launches_after: of the second.
        interrupted_s: seconds that other programs took from both runs, left out everywhere.
    """

    source: str
    tokens_before: float | None
    tokens_after: float | None
    time_before_s: float
    time_after_s: float
    parts: tuple[Part, ...]
    fused_lost: int
    fused_kernel: str
    written_beside: int
    launches_before: int
    launches_after: int
    interrupted_s: tuple[float, float] = (0.0, 0.0)

    @property
    def ratio(self) -> float:
        """Tokens after over tokens before; 1 where they are not known."""
        if not self.tokens_before or self.tokens_after is None:
            return 1.0
        return self.tokens_after / self.tokens_before

    @property
    def expected_s(self) -> float:
        """The time after, had all of it followed the tokens."""
        return self.time_before_s * self.ratio

    @property
    def sentence(self) -> str:
        """What happened, and the largest reason why time did not follow the tokens."""
        return _sentence(self)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "source": self.source,
            "tokens_before": self.tokens_before,
            "tokens_after": self.tokens_after,
            "time_before_s": self.time_before_s,
            "time_after_s": self.time_after_s,
            "expected_s": self.expected_s,
            "fused_attention_lost_layers": self.fused_lost,
            "scores_written_beside_fused": self.written_beside,
            "launches_before": self.launches_before,
            "launches_after": self.launches_after,
            "interrupted_s": list(self.interrupted_s),
            "parts": [asdict(part) for part in self.parts],
        }  # fmt: skip


def _sentence(found: Comparison) -> str:
    if found.tokens_before is None or found.tokens_after is None:
        tokens = "Tokens are not known, since no sizes were recorded"
    elif found.ratio >= 1:
        tokens = (
            f"Tokens did not fall ({found.tokens_before:.0f} and {found.tokens_after:.0f} a layer)"
        )
    else:
        tokens = (
            f"Tokens fell from {found.tokens_before:.0f} to {found.tokens_after:.0f} a layer "
            f"({1 - found.ratio:.0%})"
        )
    change = 1 - found.time_after_s / found.time_before_s if found.time_before_s else 0.0
    moved = f"fell by {change:.0%}" if change >= 0 else f"rose by {-change:.0%}"
    times = f"time {moved}, from {_ms(found.time_before_s)} to {_ms(found.time_after_s)}"
    lost = sorted((part for part in found.parts if part.lost_s > 0), key=lambda part: -part.lost_s)
    whole = sum(part.lost_s for part in lost)
    also = [
        part
        for part in lost[1:]
        if (part.name == "attention" and found.fused_lost and part.lost_s >= _WORTH_NAMING * whole)
        or (part.name == "host" and part.after_s >= _WORTH_NAMING * found.time_after_s)
    ]
    reasons = [_reason(found, part) for part in (*lost[:1], *also)]
    held = next((part for part in found.parts if part.name == "host" and part not in lost), None)
    if held is not None and held.after_s >= _MOSTLY * found.time_after_s:
        share = held.after_s / found.time_after_s
        reasons.append(f"the host, which still takes {share:.0%} of the time")
    if found.fused_lost and not any("was lost" in reason for reason in reasons):
        reasons.append(f"fused attention was lost in {found.fused_lost} layers as well")
    elif found.written_beside and _written_words(found) not in " ".join(reasons):
        reasons.append(f"besides, the method computes attention, {_written_words(found)}")
    if not lost or found.time_after_s <= found.expected_s:
        rest = f"; what holds it most: {'; then '.join(reasons)}" if reasons else ""
        return f"{tokens}; {times}, no less than the tokens{rest}."
    return f"{tokens}; {times}; the largest reason: {'; then '.join(reasons)}."


def _reason(found: Comparison, part: Part) -> str:
    cost = f"{_ms(part.lost_s)} more than the tokens allow"
    if part.name == "attention" and found.fused_lost:
        kernel = f" ({found.fused_kernel})" if found.fused_kernel else ""
        return f"fused attention{kernel} was lost, {found.fused_lost} layers write their scores out ({cost})"
    if part.name in ("method", "attention") and found.written_beside:
        return f"{PARTS[part.name]}, {_written_words(found)} ({cost})"
    if part.name == "host":
        return (
            f"the host, which hands over {found.launches_after} launches "
            f"({found.launches_before} before) and keeps the device waiting ({cost})"
        )
    if part.name in ("vision", "projector", "decode"):
        return f"{PARTS[part.name]}, which the cut leaves as it was ({cost})"
    return f"{PARTS[part.name]} ({cost})"


def _written_words(found: Comparison) -> str:
    layers = f"{found.written_beside} layer{'s' * (found.written_beside != 1)}"
    return f"which writes the scores of {layers} out beside fused attention"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


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
