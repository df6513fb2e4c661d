"""`profile` under a real torchrun: two gloo processes on this machine share a tiny LLaVA."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import profiling
from costmodel import estimate
from costmodel.models import load_model
from costmodel.parallel.sharding import rank_model
from profiling.records.storage import parse_measurement, read_measurements

ROOT = Path(profiling.__file__).parents[1]
SHARED = Path(__file__).with_name("shared.py")
COMMAND = ["-m", "vlm_roofline", "profile"]
ASKED = ["--device", "cpu", "--dtype", "fp32", "--text-tokens", "7", "--rounds", "1"]


def _start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def _end(process: subprocess.Popen[str], seconds: float = 120.0) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, out, err


def _errors(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("error:")]


def test_the_command_writes_and_prints_one_record(tiny_source: str, tmp_path: Path) -> None:
    out = tmp_path / "records"
    code, printed, err = _end(
        _start(*COMMAND, tiny_source, *ASKED, "--output-tokens", "2", "--max-time", "0.3",
               "--out", str(out))
    )  # fmt: skip
    assert code == 0, err
    assert printed.count("1 records in") == 1
    assert "several processes (gloo)" in printed
    (record,) = read_measurements(out)
    assert [path.name for path in out.iterdir()] == [record.file_name]
    assert record.ranks is not None
    assert (record.configuration.tp, record.ranks.backend) == (2, "gloo")
    assert len(record.ranks.members) == 2
    for name, stage in record.stages.items():
        apart = [member.stages[name].event_s for member in record.ranks.members]
        assert stage.event_s == tuple(map(max, *apart)), name
    shape = load_model(tiny_source)
    predicted = estimate(
        shape, "nvidia-a100-sxm4-80gb", precision="fp32", text_tokens=7, output_tokens=2, tp=2
    )
    held = {member.parameters for member in record.ranks.members}
    assert held == {rank_model(shape, 2).parameters}
    assert predicted.communication is not None
    assert record.ranks.collective_bytes == predicted.communication["bytes"]
    for stage in ("vision", "prefill"):
        assert record.stages[stage].flops == predicted.stages[stage].flops
    both = record.stages["communication"].median_s
    assert both is not None
    assert record.ttft_s is not None
    assert 0 < both < record.ttft_s
    assert record.stages["decode-communication"].median_s
    # Measured once: a second run prints what is there.
    code, printed, err = _end(
        _start(*COMMAND, tiny_source, *ASKED, "--output-tokens", "2", "--max-time", "0.3",
               "--out", str(out))
    )  # fmt: skip
    assert code == 0, err
    assert read_measurements(out) == [record]


def test_the_command_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "parallel.md").read_text().replace("\\\n", " ")
    (command,) = (line.split() for line in page.splitlines() if line.startswith("    torchrun"))
    monkeypatch.chdir(tmp_path)
    code, printed, err = _end(_start(*command[command.index("-m") :], "--max-time", "0.5"))
    assert code == 0, err
    assert "tp 2: medians in milliseconds" in printed
    (record,) = read_measurements(tmp_path / "tp2")
    assert record.ranks is not None
    assert len(record.ranks.members) == 2


def test_every_process_gets_the_records(tiny_source: str, tmp_path: Path) -> None:
    code, printed, err = _end(_start(str(SHARED), "records", tiny_source, str(tmp_path)))
    assert code == 0, err
    assert printed == ""
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    records = [parse_measurement(json.dumps(each)) for each in first]
    assert [record.tokens.visual_llm for record in records] == [16, 4, 8]
    assert all(record.status == "ok" for record in records)


def test_two_processes_answer_as_one(tiny_source: str, tmp_path: Path) -> None:
    code, _, err = _end(_start(str(SHARED), "answers", tiny_source, str(tmp_path)))
    assert code == 0, err
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) < 1e-5


def test_a_process_that_fails_ends_all_with_its_reason(tiny_source: str) -> None:
    code, printed, err = _end(_start(str(SHARED), "fails", tiny_source), 60)
    assert code != 0
    assert printed == ""
    (line,) = _errors(err)
    assert line.startswith("error: process 1 of 2 failed at ")
    assert "OutOfMemoryError: no room for 3 more tensors; nothing of this point is kept" in line


def test_a_wrong_request_is_refused_once(tiny_source: str) -> None:
    code, printed, err = _end(_start(*COMMAND, tiny_source, *ASKED, "--dtype", "fp31"), 60)
    assert code != 0
    assert printed == ""
    (line,) = _errors(err)
    assert "fp31" in line


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_all(tiny_source: str, tmp_path: Path, rank: int) -> None:
    """kill -9 while samples are taken: nobody waits, and one line says so."""
    counts = range(1, 17)
    process = _start(
        *COMMAND, tiny_source, *ASKED, "--visual-tokens", ",".join(map(str, counts)),
        "--max-time", "60", "--noise", "0.000001", "--out", str(tmp_path),
    )  # fmt: skip
    try:
        victim = _measuring(process.pid, rank, tmp_path)
        began = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        code, _, err = _end(process, 50)
    finally:
        process.kill()
    assert code != 0
    assert time.monotonic() - began < 45
    assert len(_errors(err)) == 1, err
    assert "process" in _errors(err)[0]
    assert len(list(tmp_path.glob("*.json"))) < len(counts)


def _measuring(launcher: int, rank: int, folder: Path) -> int:
    """Return the process of a rank, once the point is claimed and a moment has passed."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        time.sleep(0.2)
        found = [pid for pid in _children(launcher) if f"RANK={rank}" in _environment(pid)]
        if found and any(folder.iterdir()):
            time.sleep(3.0)
            return found[0]
    raise AssertionError("no process began to measure")


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(each) for each in text.split()]


def _environment(pid: int) -> list[Any]:
    try:
        return Path(f"/proc/{pid}/environ").read_text().split("\0")
    except OSError:
        return []
