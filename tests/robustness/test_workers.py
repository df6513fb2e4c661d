"""Many workers on one folder: shards, job arrays, kills, silence; nothing lost, nothing measured twice."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from hardware_specs.errors import InvalidFileError, InvalidInputError, UnsupportedError
from profiling.measuring import campaign as module
from profiling.measuring import launching
from profiling.measuring.campaign import Plan, parse_shard, run_points
from profiling.measuring.launching import launch
from profiling.measuring.plan_file import read_plan
from profiling.measuring.planning import grid
from profiling.records.storage import read_measurements
from vlm_roofline.cli import main

if TYPE_CHECKING:
    from pathlib import Path


def _plan(source: str, options: Any, counts: int = 4, rounds: int = 2) -> Plan:
    configurations = grid(
        [source], dtypes=["fp32"], device="cpu", visual_tokens=list(range(1, counts + 1)),
        text_tokens=3,
    )  # fmt: skip
    return Plan(configurations, rounds=rounds, options=options)


def _worker(plan: Plan, folder: Path, log: Path) -> None:
    """Measure, and add a line for every record written."""
    for record in run_points(plan, folder):
        with log.open("a") as file:
            file.write(f"{record.file_name}\n")


def _start(plan: Plan, folder: Path, log: Path) -> Any:
    with warnings.catch_warnings():
        # Python 3.12 warns of forking beside threads; the child only runs what it is given.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = multiprocessing.get_context("fork").Process(
            target=_worker, args=(plan, folder, log), daemon=True
        )
        child.start()
    return child


def _assert_whole(plan: Plan, folder: Path) -> None:
    records = read_measurements(folder)
    assert Counter(record.file_name for record in records) == Counter(plan.file_names())
    assert sorted(path.name for path in folder.iterdir()) == sorted(plan.file_names())


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_share_a_folder(workers: int, tiny_source: str, tmp_path: Path, quick: Any) -> None:
    plan, folder, log = _plan(tiny_source, quick, 6), tmp_path / "records", tmp_path / "log"
    children = [_start(plan, folder, log) for _ in range(workers)]
    for child in children:
        child.join(120)
        assert child.exitcode == 0
    _assert_whole(plan, folder)
    assert sorted(log.read_text().split()) == sorted(plan.file_names())


@pytest.mark.parametrize("workers", [2, 4])
def test_kills_of_workers_lose_nothing_and_double_nothing(
    workers: int, tiny_source: str, tmp_path: Path, quick: Any
) -> None:
    plan, folder, log = _plan(tiny_source, quick, 10), tmp_path / "records", tmp_path / "log"
    generator = random.Random(workers)
    children = [_start(plan, folder, log) for _ in range(workers)]
    kept: dict[str, bytes] = {}
    for _ in range(12):
        time.sleep(generator.uniform(0.02, 0.3))
        victim = generator.randrange(workers)
        if children[victim].is_alive():
            os.kill(children[victim].pid, signal.SIGKILL)
        children[victim].join()
        children[victim] = _start(plan, folder, log)
        now = {path.name: path.read_bytes() for path in folder.glob("*.json")}
        assert kept.items() <= now.items(), "a finished record was lost or written again"
        kept = now
    for child in children:
        child.join(120)
        assert child.exitcode == 0
    assert list(run_points(plan, folder)) == []
    _assert_whole(plan, folder)
    assert max(Counter(log.read_text().split()).values()) == 1


def test_a_point_that_was_taken_over_is_not_written_twice(
    tiny_source: str, tmp_path: Path, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that stood still finds that another has its point: it leaves it to the other."""
    plan = _plan(tiny_source, quick, 1, rounds=1)
    real, others = module.measure_point, []

    def standing_still(*args: Any, **kwargs: Any) -> Any:
        if not others:
            others.append(None)
            others[:] = run_points(plan, tmp_path, stale_s=0.0)
        return real(*args, **kwargs)

    monkeypatch.setattr(module, "measure_point", standing_still)
    assert list(run_points(plan, tmp_path)) == []
    assert read_measurements(tmp_path) == others
    _assert_whole(plan, tmp_path)


def test_shards_are_parts_of_the_whole(tiny_source: str, tmp_path: Path, quick: Any) -> None:
    plan = _plan(tiny_source, quick, 5)
    parts = [plan.points(f"{index}/3") for index in (1, 2, 3)]
    assert sorted(p.position for part in parts for p in part) == list(range(10))
    assert {len(part) for part in parts} == {3, 4}
    small = _plan(tiny_source, quick, 3, rounds=1)
    assert [len(list(run_points(small, tmp_path, f"{index}/2"))) for index in (1, 2)] == [2, 1]
    _assert_whole(small, tmp_path)
    for wrong in ("0/4", "5/4", "1", "a/b", "1/2/3", "slurm"):
        with pytest.raises(InvalidInputError, match="i/n"):
            parse_shard(wrong, {})


def test_a_job_array_needs_nothing_but_its_variables(
    tiny_source: str, tmp_path: Path, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = _plan(tiny_source, quick, 3, rounds=1)
    for name, value in {"COUNT": "2", "MIN": "1", "MAX": "2", "STEP": "1"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    measured = []
    for task in ("1", "2"):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", task)
        measured.append(len(list(run_points(plan, tmp_path, "slurm"))))
    assert measured == [2, 1]
    _assert_whole(plan, tmp_path)


def test_launched_processes_measure_a_plan(tiny_source: str, tmp_path: Path, quick: Any) -> None:
    plan = _plan(tiny_source, quick, 2, rounds=1)
    seen: list[tuple[int, int]] = []
    records = launch(plan, tmp_path, workers=2, on_progress=lambda *done: seen.append(done))
    assert seen[-1] == (2, 2)
    assert [record.file_name for record in records] == plan.file_names()
    _assert_whole(plan, tmp_path)
    with pytest.raises(InvalidInputError, match="engine="):
        launch(plan, tmp_path, engine="cloud")
    with pytest.raises(InvalidInputError, match="workers"):
        launch(plan, tmp_path, workers=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(UnsupportedError, match="exit codes 2: cannot write"):
        launch(plan, tmp_path / "file")


def test_each_worker_sees_a_gpu_of_its_own(
    tiny_source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(grid([tiny_source], device="cuda"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert launching._gpus(plan, 1) == [None]
    assert launching._gpus(plan, 2) == ["2", "5"]
    with pytest.raises(InvalidInputError, match="3 workers need as many GPUs; there are 2"):
        launching._gpus(plan, 3)


def test_a_plan_file_is_measured_in_parts(
    tiny_source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "plan.yaml", tmp_path / "out"
    file.write_text(
        f"model: {tiny_source}\ndevice: cpu\ndtype: fp32\nvisual_tokens: [4, 1, null]\n"
        "text_tokens: 3\nrounds: 1\nmax_time: 0.02\n"
    )
    asked = ["profile", "--plan", str(file), "--out", str(out)]
    assert main([*asked, "--shard", "1/2"]) == 0
    assert "2 records in" in capsys.readouterr().out
    assert main([*asked, "--shard", "2/2"]) == 0
    _assert_whole(read_plan(file), out)
    assert main([*asked, "--rounds", "3"]) == 2
    assert "--rounds stands beside --plan" in capsys.readouterr().err
    assert main(["profile"]) == 2
    assert main([*asked, "--shard", "3/2"]) == 2
    assert main(["profile", "--plan", str(file), "--shard", "1/2"]) == 2


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("model: llava-1.5-7b\nvisual_token: 4", "visual_token: "),
        ("model: llava-1.5-7b\nrounds: two", "rounds"),
        ("model: llava-1.5-7b\nrounds: 1\nrounds: 2", "appears twice"),
        ("rounds: 2", "model"),
        ("- 1", "no keys"),
        ("model: llava-1.5-7b\nschema_version: 9", "known is 1"),
    ],
)
def test_bad_plan_files_are_refused(text: str, word: str, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(InvalidFileError, match=word):
        read_plan(tmp_path / "plan.yaml")
