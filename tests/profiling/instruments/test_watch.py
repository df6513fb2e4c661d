"""Who else was there: the host's load from accounts written by hand, and spoilt chunks waited out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_nvml import FakeNvml

from profiling.devices.cpu import HostClock
from profiling.instruments.nvml import AbsentMonitor, open_monitor
from profiling.instruments.watch import HostLoad, Watch
from profiling.measuring.sampling import take_samples
from profiling.measuring.stopping import StopRule, WarmUpRule
from profiling.records.measurement import TOTAL

UUID = "0a1b2c3d-0000-1111-2222-333344445555"


def _accounts(path: Path, user: int, idle: int, steal: int = 0) -> None:
    path.write_text(f"cpu  {user} 0 0 {idle} 0 0 0 {steal} 0 0\ncpu0 1 2 3 4\n")


class Clocks:
    """Processor time of our own and time on the wall, moved by hand."""

    def __init__(self, stat: Path) -> None:
        self.own = self.wall = 0.0
        self.load = HostLoad(stat, own_s=lambda: self.own, clock_s=lambda: self.wall)


def test_others_are_what_is_busy_and_not_ours(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    _accounts(stat, 1000, 5000)
    clocks = Clocks(stat)
    clocks.load.begin()
    clocks.wall += 0.2
    # Ten hundredths of a second by others and ten stolen, in two tenths of a second.
    _accounts(stat, 1010, 5000, steal=10)
    assert clocks.load.foreign_share() == pytest.approx(1.0)
    clocks.load.begin()
    clocks.wall += 0.2
    assert clocks.load.foreign_share() == pytest.approx(0.0, abs=1e-9)


def test_our_own_work_is_not_foreign(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    _accounts(stat, 1000, 5000)
    clocks = Clocks(stat)
    clocks.load.begin()
    clocks.wall, clocks.own = 2.0, 1.5
    _accounts(stat, 1150, 5050)
    assert clocks.load.foreign_share() == pytest.approx(0.0, abs=1e-9)
    _accounts(stat, 1250, 5150)  # One more second, which is nobody's of ours: half of two seconds.
    assert clocks.load.foreign_share() == pytest.approx(0.5)
    # The accounts tick in hundredths: ours may be ahead of them, and nobody works less than nothing.
    _accounts(stat, 1149, 5050)
    assert clocks.load.foreign_share() == 0.0


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs Linux's accounts")
def test_linux_keeps_the_accounts() -> None:
    load = HostLoad()
    load.begin()
    share = load.foreign_share()
    assert share is not None
    assert share >= 0.0


def test_without_accounts_nobody_knows(tmp_path: Path) -> None:
    load = HostLoad(tmp_path / "nothing")
    load.begin()
    assert load.foreign_share() is None


class Loads:
    """A host whose others are busy for the first so many windows."""

    def __init__(self, busy: int) -> None:
        self.busy = busy

    def begin(self) -> None: ...

    def foreign_share(self) -> float:
        self.busy -= 1
        return 0.9 if self.busy >= 0 else 0.05


class Run:
    def run(self, observer: Any = None, *, decode: bool = True) -> None:
        if observer is not None:
            observer.begin(TOTAL)
            observer.end(TOTAL)


def _sample(watch: Watch) -> Any:
    return take_samples(
        Run(), HostClock(), guard=watch,
        rule=StopRule(min_samples=5, min_time_s=0.0, max_time_s=1.0, max_samples=40),
        warm_up=WarmUpRule(min_time_s=0.0, max_time_s=0.0),
    )  # fmt: skip


def test_busy_moments_are_waited_out() -> None:
    watch = Watch(AbsentMonitor("a CPU"), Loads(2), 0.2, patience_s=5.0)  # type: ignore[arg-type]
    samples = _sample(watch)
    assert samples.sampling.rejected_s
    assert samples.stages[TOTAL].event_s
    state = watch.state()
    assert state.foreign_load[:3] == (0.9, 0.9, 0.05)
    assert state.throttle_reasons == ("foreign-load",)


def test_patience_ends_and_says_so() -> None:
    watch = Watch(AbsentMonitor("a CPU"), Loads(10**6), 0.2, patience_s=0.2)  # type: ignore[arg-type]
    samples = _sample(watch)
    assert samples.sampling.stop_reason == "throttled"
    assert samples.stages == {}


def test_without_a_limit_load_is_only_recorded() -> None:
    watch = Watch(AbsentMonitor("a CPU"), Loads(10**6))  # type: ignore[arg-type]
    samples = _sample(watch)
    assert samples.sampling.rejected_s == ()
    assert watch.state().foreign_load[0] == 0.9
    assert watch.state().throttle_reasons == ()


def test_a_gpus_state_is_written_down() -> None:
    library = FakeNvml()
    watch = Watch(open_monitor("cuda", UUID, library))
    watch.begin()
    # The software power cap is the speed the card has; a hardware slowdown spoils the chunk.
    assert watch.check() == []
    library.reasons = 8 | 64
    assert watch.check() == ["hw-slowdown", "hw-thermal"]
    state = watch.state()
    assert state.sm_clock_hz == (1_980_000_000, 1_980_000_000)
    assert state.power_w == (350.0, 350.0)
    assert state.throttle_reasons == ("hw-slowdown", "hw-thermal", "sw-power-cap")
    assert state.memory_used_bytes == 7 * 10**9
    assert state.foreign_load == ()
