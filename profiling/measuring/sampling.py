"""The measuring loop: first call, warm-up until steady, samples without waiting, then latencies.

Three passes, each for what it measures best:

1. Warm-up, one repetition at a time, until two groups of runs agree.
2. Samples: repetitions are queued back to back with an event pair per stage, and the device is
   waited for once per chunk, never inside one. These are the `event_s`.
3. Latencies, on devices that queue work: a few repetitions that start on an idle device, for the
   time the host needs to issue a stage (`enqueue_s`), the time until everything is done
   (`wall_s`), and the stages' times from a start that is alike for all (`idle_event_s`). In the
   second pass the host runs ahead and waits for room in the queue, so its own time says nothing.

A chunk that the guard rejects (a throttled device, somebody else's work) is thrown away and waited
out, as long as the guard is patient: when nothing was accepted the result says so, and no number is
made up.
"""

from __future__ import annotations

import gc
import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from costmodel.quantities import STAGES
from profiling.instruments.recorder import Recorder, RepetitionTimes
from profiling.measuring.stopping import Stopper, StopRule, WarmUpRule
from profiling.records.measurement import (
    COMMUNICATION,
    DECODE_COMMUNICATION,
    TOTAL,
    Sampling,
    StageSamples,
)
from profiling.records.samples import order_statistic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from profiling.devices.interface import Clock
    from profiling.subject.stages import StageObserver

T = TypeVar("T")

#: A chunk of queued repetitions lasts about this long; long enough to make one wait negligible.
_CHUNK_S = 0.2
_MAX_CHUNK = 32
#: Latencies: at least this many repetitions, and no more once they took so many seconds.
_LATENCY_RUNS, _LEAST_LATENCY_RUNS, _LATENCY_S = 10, 3, 1.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0


class Runnable(Protocol):
    """Something that can be repeated under observation."""

    def run(self, observer: StageObserver | None = None, *, decode: bool = True) -> None:
        """Run one repetition, with its decode steps or only to the first logits."""


class Guard(Protocol):
    """A guard that watches the device between chunks.

    Attributes:
        patience_s: seconds to spend on chunks that are thrown away.
    """

    patience_s: float

    def begin(self) -> None:
        """Note that a chunk begins."""

    def check(self) -> list[str]:
        """Return the reasons why the chunk just measured must not count; empty when it counts."""


class Together(Protocol):
    """Processes that repeat the same work and must decide alike."""

    def same(self, value: T) -> T:
        """Return the value of the first process on every one."""

    def any_of(self, flag: bool) -> bool:
        """Return whether the flag is set on any."""


class Alone:
    """One process, which decides for itself."""

    def same(self, value: T) -> T:
        """Return the value."""
        return value

    def any_of(self, flag: bool) -> bool:
        """Return the flag."""
        return flag


class NoGuard:
    """Watch nothing."""

    patience_s = 0.0

    def begin(self) -> None:
        """Do nothing."""

    def check(self) -> list[str]:
        """Accept every chunk."""
        return []


@dataclass(frozen=True, slots=True)
class Samples:
    """The samples of one measurement."""

    sampling: Sampling
    stages: dict[str, StageSamples]


@dataclass(slots=True)
class _Accepted:
    repetitions: list[RepetitionTimes] = field(default_factory=list)
    totals: list[float] = field(default_factory=list)
    rejected: list[float] = field(default_factory=list)


def take_samples(
    target: Runnable,
    clock: Clock,
    *,
    rule: StopRule | None = None,
    warm_up: WarmUpRule | None = None,
    guard: Guard | None = None,
    together: Together | None = None,
) -> Samples:
    """Measure something until the stop rule is met.

    Args:
        target: what to repeat; it tells its observer about stages and `total`.
        clock: the device's clock.
        rule: when enough samples were taken.
        warm_up: when the first sample may be taken.
        guard: rejects chunks during which the device was throttled.
        together: the processes that repeat this with each other: the first decides when the warm-up and the
            samples are enough, and a chunk that one rejects counts for none. None for one process.
    """
    rule, warm_up, guard = rule or StopRule(), warm_up or WarmUpRule(), guard or NoGuard()
    together = together or Alone()
    recorder = Recorder(clock)
    with _no_garbage_collection():
        first_s, warm_s, steady = _warm(target, clock, warm_up, together)
        usual_s = order_statistic(warm_s or [first_s], 0.5)
        accepted, reason = _sample(target, recorder, rule, guard, usual_s, together)
        latencies = _latencies(target, recorder, rule, together) if clock.asynchronous else []
    sampling = Sampling(
        timer=clock.name,
        first_call_s=first_s,
        warm_up_s=tuple(warm_s),
        steady=steady,
        stop_reason=reason,
        target_dispersion=rule.target_dispersion,
        rejected_s=tuple(accepted.rejected),
    )
    return Samples(sampling, stage_samples(accepted.repetitions, latencies, clock.asynchronous))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    # A collection inside a repetition is an outlier of the interpreter, not of the device.
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _timed_alone(target: Runnable, clock: Clock, *, decode: bool = True) -> float:
    clock.synchronize()
    start = clock.now_s()
    target.run(decode=decode)
    clock.synchronize()
    return clock.now_s() - start


def _warm(
    target: Runnable, clock: Clock, rule: WarmUpRule, together: Together
) -> tuple[float, list[float], bool]:
    first = _timed_alone(target, clock)
    started = clock.now_s()
    seconds: list[float] = []
    while True:
        elapsed = clock.now_s() - started
        steady = rule.is_steady(seconds)
        ends = (steady and elapsed >= rule.min_time_s) or elapsed >= rule.max_time_s
        if together.same(ends):
            return first, seconds, steady
        seconds.append(_timed_alone(target, clock))


def _sample(
    target: Runnable,
    recorder: Recorder,
    rule: StopRule,
    guard: Guard,
    usual_s: float,
    together: Together,
) -> tuple[_Accepted, str]:
    accepted = _Accepted()
    clock = recorder.clock
    stopper = Stopper(rule)
    chunk = together.same(max(1, min(_MAX_CHUNK, math.ceil(_CHUNK_S / max(usual_s, 1e-6)))))
    pause_s, rejections, lost_s = _FIRST_PAUSE_S, 0, 0.0
    started = clock.now_s()
    while True:
        began = clock.now_s()
        guard.begin()
        repetitions = _chunk(target, recorder, min(chunk, rule.max_samples))
        totals = [sum(repetition.event_s[TOTAL]) for repetition in repetitions]
        if together.any_of(bool(guard.check())):
            accepted.rejected += totals
            rejections += 1
            clock.sleep(pause_s)
            pause_s = min(_LONGEST_PAUSE_S, pause_s * (2 if rejections > 2 else 1))
            lost_s += clock.now_s() - began
            if together.same(lost_s >= guard.patience_s and not accepted.totals):
                return accepted, "throttled"
        else:
            accepted.repetitions += repetitions
            accepted.totals += totals
        # What was thrown away does not use up the time for sampling, within the guard's patience.
        elapsed_s = clock.now_s() - started - min(lost_s, guard.patience_s)
        reason = together.same(stopper.decide(accepted.totals, elapsed_s))
        if reason is not None:
            return accepted, reason if accepted.totals else "throttled"


def _chunk(target: Runnable, recorder: Recorder, count: int) -> list[RepetitionTimes]:
    try:
        for _ in range(count):
            target.run(recorder)
            recorder.close()
        recorder.clock.synchronize()
        return recorder.collect()
    except BaseException:
        recorder.discard()
        raise


def _latencies(
    target: Runnable, recorder: Recorder, rule: StopRule, together: Together
) -> list[tuple[RepetitionTimes, float]]:
    runs: list[tuple[RepetitionTimes, float]] = []
    clock = recorder.clock
    started = clock.now_s()
    while len(runs) < min(_LATENCY_RUNS, rule.max_samples):
        late = len(runs) >= _LEAST_LATENCY_RUNS and clock.now_s() - started > _LATENCY_S
        if together.same(late):
            break
        # Apart, because the wall time ends at the first logits, and issuing goes on to the decode.
        wall_s = _timed_alone(target, clock, decode=False)
        target.run(recorder)
        recorder.close()
        clock.synchronize()
        runs.append((recorder.collect()[0], wall_s))
    return runs


def stage_samples(
    repetitions: list[RepetitionTimes],
    latencies: list[tuple[RepetitionTimes, float]],
    asynchronous: bool,
) -> dict[str, StageSamples]:
    """Return the samples of every stage, repetitions in order.

    Args:
        repetitions: of the sampling pass; a stage entered several times counts as their sum.
        latencies: of the latency pass, each with its wall time.
        asynchronous: whether work is queued; when not, wall time is event time.
    """
    seen = {name for item in repetitions for name in item.event_s}
    names = [name for name in (*STAGES, COMMUNICATION, DECODE_COMMUNICATION, TOTAL) if name in seen]
    stages = {}
    for name in names:
        event_s = tuple(math.fsum(item.event_s.get(name, [])) for item in repetitions)
        enqueue_s = tuple(
            math.fsum(item.host_s[name]) for item, _ in latencies if name in item.host_s
        )
        idle_s = tuple(
            math.fsum(item.event_s[name]) for item, _ in latencies if name in item.event_s
        )
        wall_s: tuple[float, ...] = ()
        if name == TOTAL:
            wall_s = tuple(wall for _, wall in latencies) if asynchronous else event_s
        steps = tuple(tuple(item.event_s[name]) for item in repetitions) if name == "decode" else ()
        stages[name] = StageSamples(
            event_s=event_s, enqueue_s=enqueue_s, wall_s=wall_s, idle_event_s=idle_s,
            step_event_s=steps,
        )  # fmt: skip
    return stages
