"""Sweeps over many workers: those that are killed, a whole sweep that is, and the memory that it takes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from dying_reducers import BEST, Dying

from costmodel import sweep
from hardware_specs.errors import UnsupportedError, VlmRooflineError

if TYPE_CHECKING:
    from pathlib import Path

#: Three parts of cheap rows.
GRID: dict[str, Any] = {
    "model": "llava-1.5-7b", "hardware": "nvidia-a100-sxm4-80gb", "calibration": None,
    "memory_margin_bytes": list(range(150)), "batch_size": [1, 2],
}  # fmt: skip


def test_a_part_whose_worker_is_killed_is_priced_by_another(tmp_path: Path) -> None:
    found = sweep(**GRID, reduce=Dying(str(tmp_path), 2), workers=2)
    pd.testing.assert_frame_equal(found, sweep(**GRID, reduce=BEST, workers=1))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_part_that_kills_every_worker_ends_the_sweep(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="a worker died and no part was finished"):
        sweep(**GRID, reduce=Dying(str(tmp_path), 99), workers=1 + 1)


def test_what_a_worker_refuses_is_told() -> None:
    with pytest.raises(VlmRooflineError, match="fp8"):
        sweep(**GRID, precision="fp8", reduce=BEST, workers=2)


def test_a_sweep_that_is_killed_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "parts"
    words = [
        sys.executable, "-m", "vlm_roofline", "sweep", GRID["model"], "-d", GRID["hardware"],
        "--calibration", "none", "--parts", str(out), "--workers", "2", "--batch-size", "1:30",
        "--memory-margin-bytes", ",".join(map(str, range(301))),
    ]  # fmt: skip
    running = subprocess.Popen(words, start_new_session=True)
    while running.poll() is None and not list(out.glob("part-*.parquet")):
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("part-*.parquet")}
    assert kept
    subprocess.run(words, check=True, capture_output=True)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    read = pd.concat(map(pd.read_parquet, sorted(out.glob("part-*.parquet"))))
    asked = GRID | {"memory_margin_bytes": list(range(301)), "batch_size": range(1, 31)}
    assert read.time_s.tolist() == sweep(**asked).time_s.tolist()


def test_memory_does_not_grow_with_the_rows() -> None:
    """Ten times the rows; what is kept of them are five and a front."""

    def peak_mib(texts: int) -> float:
        code = (
            "import resource; from costmodel import pareto, sweep; front = sweep('llava-1.5-7b', 'l4', "
            f"text_tokens=range(1, {texts}), batch_size=range(1, 129), workers=1, "
            "reduce=pareto('time_s', 'peak_memory_bytes', '-batch_size')); assert front.attrs['rows'] "
            f"== {texts - 1} * 128; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        )
        return float(done.stdout)

    assert peak_mib(10_001) < peak_mib(1_001) + 20
