"""A campaign of `profile` killed with kill -9 twenty times, and the command killed once."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

from profiling.measuring.campaign import run_campaign
from profiling.measuring.planning import grid
from profiling.records.storage import read_measurements
from vlm_roofline.cli import main

if TYPE_CHECKING:
    from pathlib import Path


def _campaign_in_child(source: str, folder: str, options: Any) -> None:
    points = grid([source], dtypes=["fp32"], device="cpu", visual_tokens=list(range(1, 11)),
                  text_tokens=3)  # fmt: skip
    for _ in run_campaign(points, folder, rounds=2, options=options):
        pass


def test_twenty_kills_lose_nothing_and_double_nothing(
    tiny_source: str, tmp_path: Path, quick: Any
) -> None:
    """kill -9 at random moments; every record that was there stays there, byte for byte."""
    folder = tmp_path / "campaign"
    fork = multiprocessing.get_context("fork")
    generator = random.Random(20)
    kept: dict[str, bytes] = {}
    kills = rounds = 0
    while kills < 20:
        rounds += 1
        with warnings.catch_warnings():
            # Python 3.12 warns of forking beside threads; the child only runs what it is given.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = fork.Process(
                target=_campaign_in_child, args=(tiny_source, str(folder), quick), daemon=True
            )
            child.start()
        child.join(generator.uniform(0.02, 0.35))
        if child.is_alive():
            os.kill(child.pid or 0, signal.SIGKILL)
            kills += 1
        child.join()
        now = {path.name: path.read_bytes() for path in folder.glob("*.json")}
        assert kept.items() <= now.items(), "a finished record was lost or written again"
        kept = now
        records = read_measurements(folder) if folder.exists() else []
        assert len(records) == len(kept)
        if len(kept) == 20:
            # Finished before the twentieth kill: start over in an empty folder.
            for path in folder.iterdir():
                path.unlink()
            kept = {}
        assert rounds < 60
    child = fork.Process(target=_campaign_in_child, args=(tiny_source, str(folder), quick))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    final = read_measurements(folder)
    assert Counter((r.configuration.visual_tokens, r.round) for r in final) == Counter(
        {(n, round_): 1 for n in range(1, 11) for round_ in (0, 1)}
    )
    assert sorted(r.position for r in final) == list(range(20))
    assert not list(folder.glob(".*.partial"))
    assert {path.name: path.read_bytes() for path in folder.glob("*.json")}.items() >= kept.items()


def test_a_killed_command_goes_on(tiny_source: str, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "vlm_roofline", "profile", tiny_source, "--out", str(tmp_path),
        "--device", "cpu", "--dtype", "fp32", "--text-tokens", "3", "--max-time", "0.02",
        "--rounds", "1", "--visual-tokens", "1:6:1",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.json")}
    assert 1 <= len(before) < 6
    assert main(command[3:]) == 0
    after = {path.name: path.read_bytes() for path in tmp_path.glob("*.json")}
    assert len(after) == len(read_measurements(tmp_path)) == 6
    assert before.items() <= after.items()
