"""The measuring loop against a simulated device: a clock that counts, work that takes what it says."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest

from profiling.devices.cpu import HostClock
from profiling.devices.cuda import CudaClock
from profiling.devices.device import clock_for, device_kind
from profiling.devices.interface import Mark
from profiling.instruments.recorder import Recorder
from profiling.measuring.sampling import NoGuard, take_samples
from profiling.measuring.stopping import StopRule, WarmUpRule
from profiling.records.measurement import TOTAL

RULE = StopRule(min_samples=6, min_time_s=0.0, max_time_s=5.0, max_samples=12)
WARM = WarmUpRule(min_time_s=0.0, max_time_s=0.2)


@dataclass
class Stream:
    """A device: events are times in milliseconds on a stream that runs on by itself."""

    now_ms: float = 0.0
    waits: int = 0
    made: int = 0

    def event(self) -> Any:
        stream = self
        self.made += 1

        class Event:
            at_ms = -1.0

            def record(self) -> None:
                self.at_ms = stream.now_ms

            def elapsed_time(self, end: Any) -> float:
                assert stream.waits > 0, "an event was read before anybody waited"
                return float(end.at_ms - self.at_ms)

        return Event()

    def synchronize(self) -> None:
        self.waits += 1


@dataclass
class Work:
    """A run with a vision stage of 2 ms, a prefill of 3 ms, and decode steps of 1 ms."""

    stream: Stream
    steps: int = 0
    runs: int = 0
    slow: Any = field(default_factory=lambda: itertools.repeat(1.0))

    def run(self, observer: Any = None, *, decode: bool = True) -> None:
        self.runs += 1
        factor = next(self.slow)

        def stage(name: str, milliseconds: float) -> None:
            if observer is not None:
                observer.begin(name)
            self.stream.now_ms += milliseconds * factor
            if observer is not None:
                observer.end(name)

        if observer is not None:
            observer.begin(TOTAL)
        stage("vision", 2.0)
        stage("prefill", 3.0)
        if observer is not None:
            observer.end(TOTAL)
        for _ in range(self.steps if decode else 0):
            stage("decode", 1.0)


def _cuda(stream: Stream) -> CudaClock:
    return CudaClock(new_event=stream.event, synchronize=stream.synchronize)


def test_stages_are_timed_by_events_and_waited_for_once_per_chunk() -> None:
    stream = Stream()
    work = Work(stream, steps=2)
    samples = take_samples(work, _cuda(stream), rule=RULE, warm_up=WARM)
    assert samples.sampling.timer == "cuda-event"
    assert samples.sampling.stop_reason == "noise-under-target"
    assert set(samples.stages) == {"vision", "prefill", "decode", TOTAL}
    assert samples.stages["vision"].event_s[0] == pytest.approx(0.002)
    assert samples.stages[TOTAL].event_s[-1] == pytest.approx(0.005)
    assert samples.stages["decode"].event_s[0] == pytest.approx(0.002)
    assert samples.stages["decode"].step_event_s[0] == pytest.approx((0.001, 0.001))


def test_a_chunk_of_runs_is_waited_for_once() -> None:
    stream = Stream()
    work = Work(stream)
    seen = []

    class Counting(NoGuard):
        def check(self) -> list[str]:
            seen.append((work.runs, stream.waits))
            return []

    rule = StopRule(min_samples=20, max_samples=60, min_time_s=0.0, max_time_s=5.0)
    cold = WarmUpRule(min_time_s=0.0, max_time_s=0.0)
    take_samples(work, _cuda(stream), rule=rule, warm_up=cold, guard=Counting())
    # The first call waits before and after itself; then, microseconds each, a whole chunk of 32 is
    # queued behind one wait.
    assert seen == [(1 + 32, 2 + 1)]


def test_events_are_reused() -> None:
    stream = Stream()
    recorder = Recorder(_cuda(stream))
    for _ in range(5):
        recorder.begin("vision")
        recorder.end("vision")
        recorder.close()
        recorder.clock.synchronize()
        recorder.collect()
    assert stream.made == 2


def test_latencies_start_on_an_idle_device_and_leave_out_the_decode() -> None:
    stream = Stream()
    samples = take_samples(Work(stream, steps=1), _cuda(stream), rule=RULE, warm_up=WARM)
    assert len(samples.stages[TOTAL].wall_s) == 10
    assert len(samples.stages["decode"].enqueue_s) == 10
    assert samples.stages["vision"].wall_s == ()
    # The simulated device is instant for the host: nothing is host-bound.
    assert samples.stages["prefill"].host_bound is False


def test_a_cpu_has_wall_times_equal_to_event_times_and_no_enqueue_times() -> None:
    samples = take_samples(Work(Stream()), HostClock(), rule=RULE, warm_up=WARM)
    assert samples.sampling.timer == "perf_counter"
    assert samples.stages[TOTAL].wall_s == samples.stages[TOTAL].event_s
    assert samples.stages[TOTAL].enqueue_s == ()
    assert samples.stages[TOTAL].host_bound is None


class Throttled(NoGuard):
    """A guard that rejects the first so many chunks."""

    patience_s = 0.3

    def __init__(self, rejections: int) -> None:
        self.left = rejections

    def check(self) -> list[str]:
        self.left -= 1
        return ["hw-thermal"] if self.left >= 0 else []


def test_throttled_chunks_are_thrown_away_and_kept_in_the_record() -> None:
    stream = Stream()
    samples = take_samples(Work(stream), _cuda(stream), rule=RULE, warm_up=WARM, guard=Throttled(1))
    assert samples.sampling.rejected_s
    assert len(samples.stages[TOTAL].event_s) >= RULE.min_samples
    assert samples.sampling.stop_reason == "noise-under-target"


def test_a_device_that_stays_throttled_gives_no_sample_and_no_number() -> None:
    stream = Stream()
    samples = take_samples(
        Work(stream), _cuda(stream), rule=RULE, warm_up=WARM, guard=Throttled(10**6)
    )
    assert samples.sampling.stop_reason == "throttled"
    assert samples.stages == {}
    assert samples.sampling.rejected_s


def test_a_failed_run_leaves_no_half_repetition_behind() -> None:
    stream = Stream()

    class Fails(Work):
        def run(self, observer: Any = None, *, decode: bool = True) -> None:
            super().run(observer, decode=decode)
            if observer is not None:
                raise MemoryError

    with pytest.raises(MemoryError):
        take_samples(Fails(stream), _cuda(stream), rule=RULE, warm_up=WARM)


def test_an_unsteady_warm_up_says_so() -> None:
    stream = Stream()
    samples = take_samples(
        Work(stream), _cuda(stream), rule=RULE,
        warm_up=WarmUpRule(min_time_s=0.0, max_time_s=0.0),
    )  # fmt: skip
    assert samples.sampling.steady is False
    assert samples.sampling.warm_up_s == ()


def test_garbage_collection_is_switched_back_on() -> None:
    import gc

    seen = []

    class Watching(Work):
        def run(self, observer: Any = None, *, decode: bool = True) -> None:
            seen.append(gc.isenabled())
            super().run(observer, decode=decode)

    take_samples(Watching(Stream()), HostClock(), rule=RULE, warm_up=WARM)
    assert not any(seen)
    assert gc.isenabled()


def test_a_nested_stage_counts_once_for_itself() -> None:
    clock = HostClock()
    recorder = Recorder(clock)
    marks = iter([Mark(0.0), Mark(1.0), Mark(3.0), Mark(10.0)])
    clock.mark = lambda: next(marks)  # type: ignore[method-assign]
    recorder.begin("prefill")
    recorder.begin("reduction")
    recorder.end("reduction")
    recorder.end("prefill")
    recorder.close()
    (times,) = recorder.collect()
    assert times.event_s == {"reduction": [2.0], "prefill": [10.0]}


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu:1x", ""])
def test_an_unknown_device_is_refused(device: str) -> None:
    from hardware_specs.errors import InvalidInputError

    with pytest.raises(InvalidInputError, match="is not one of"):
        device_kind(device)


def test_no_cuda_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from hardware_specs.errors import DeviceUnavailableError

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceUnavailableError, match="--device cpu"):
        clock_for("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DeviceUnavailableError, match="there are 1 CUDA devices"):
        device_kind("cuda:3")
