"""Claims: one winner, whoever comes; the dead and the silent lose theirs, whatever a clock says."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from hardware_specs.files import claiming
from hardware_specs.files.claiming import Claims

if TYPE_CHECKING:
    from pathlib import Path


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        monkeypatch.setattr(claiming.time, "monotonic", lambda: self.now_s)


def _elsewhere(path: Path) -> Path:
    """Put the claim of another machine beside a file."""
    claim = path.with_name(f".{path.stem}.claim")
    claim.mkdir()
    holder = claim / "0badcafe-7-7-0"
    holder.touch()
    return holder


def test_a_claim_of_another_machine_is_taken_over_when_it_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, path = Clock(monkeypatch), tmp_path / "a.json"
    holder = _elsewhere(path)
    claims = Claims(stale_s=100)
    for now_s in (0.0, 99.0):
        clock.now_s = now_s
        with claims.holding(path) as held:
            assert held is None
    os.utime(holder, (1, 1))  # it lives, by a clock of its own
    for now_s in (150.0, 249.0):
        clock.now_s = now_s
        with claims.holding(path) as held:
            assert held is None
    clock.now_s = 250.0
    with claims.holding(path) as held:
        assert held is not None
        assert held()
        assert not holder.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("jump_s", [-1e8, 1e8])
def test_a_clock_that_jumps_ends_no_claim(
    jump_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    holder = _elsewhere(path)
    os.utime(holder, (time.time() + jump_s,) * 2)
    claims = Claims(stale_s=100)
    monkeypatch.setattr(claiming.time, "time", lambda: time.time() + jump_s, raising=False)
    for _ in range(3):
        with claims.holding(path) as held:
            assert held is None


def test_of_many_that_take_a_stale_claim_over_one_succeeds(tmp_path: Path) -> None:
    path, workers = tmp_path / "a.json", 8
    for _ in range(50):
        _elsewhere(path)
        views = [Claims(stale_s=0.0) for _ in range(workers)]
        start, end = threading.Barrier(workers), threading.Barrier(workers)
        won: list[int] = []

        def take(number: int, views=views, start=start, end=end, won=won) -> None:  # type: ignore[no-untyped-def]
            views[number]._stale_s = 1e9  # only what was stale before is
            (holder,) = path.with_name(".a.claim").iterdir()
            views[number]._seen[str(holder)] = (holder.stat().st_mtime_ns, -2e9)
            start.wait()
            with views[number].holding(path) as held:
                if held is not None:
                    won.append(number)
                end.wait()

        threads = [threading.Thread(target=take, args=(n,)) for n in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert list(tmp_path.iterdir()) == []


def test_a_holder_that_lost_its_claim_knows(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with Claims().holding(path) as first:
        assert first is not None
        with Claims(stale_s=0.0).holding(path) as second:
            assert second is not None
            assert second()
            assert not first()
    assert list(tmp_path.iterdir()) == []


def test_a_held_claim_is_touched_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with Claims(beat_s=0.01).holding(path):
        (holder,) = path.with_name(".a.claim").iterdir()
        os.utime(holder, (1, 1))
        deadline = time.monotonic() + 5
        while holder.stat().st_mtime < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert holder.stat().st_mtime > 2


def test_what_a_kill_leaves_halfway_is_cleared(tmp_path: Path) -> None:
    path, claims = tmp_path / "a.json", Claims(stale_s=0.0)
    claim = path.with_name(".a.claim")
    claim.mkdir()  # killed before its name was in
    with claims.holding(path) as held:
        assert held is None
    assert not claim.exists()
    _elsewhere(path)
    (claim / "0badcafe-8-8-0").touch()  # two that gave way to each other
    tries = 0
    held = None
    while held is None and tries < 4:
        tries += 1
        with claims.holding(path) as held:
            pass
    assert held is not None
    _elsewhere(path)
    claims.clear(path)
    claims.clear(path)
    assert list(tmp_path.iterdir()) == []
