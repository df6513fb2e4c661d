"""Campaigns on a Ray cluster of two nodes: kills and losses; nothing lost, nothing measured twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ray_nodes import Logged, add_node, ray_cluster

from hardware_specs.errors import UnsupportedError
from profiling.measuring.campaign import Plan
from profiling.measuring.launching import launch
from profiling.measuring.planning import grid
from profiling.measuring.point import Options
from profiling.measuring.stopping import StopRule, WarmUpRule
from profiling.records.storage import read_measurements
from vlm_roofline.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytest.importorskip("ray", reason="Ray is not installed; `make ray` installs it")

#: A point lasts half a second, so that what happens happens to one.
SLOW = Options(
    rule=StopRule(min_samples=3, min_time_s=0.4, max_time_s=0.5),
    warm_up=WarmUpRule(min_time_s=0.0, max_time_s=0.05),
    counters=False,
    memory=False,
)
PATIENCE_S = 60


class Campaign:
    """A plan, its folder, a log of every measurement that began, and its launch in a thread."""

    def __init__(self, source: str, folder: Path, points: int) -> None:
        self.folder, self.log = folder / "records", folder / "log"
        self.folder.mkdir()
        self.log.touch()
        counts = list(range(1, points + 1))
        configurations = grid(
            [source], dtypes=["fp32"], device="cpu", visual_tokens=counts, text_tokens=3
        )
        self.plan = Plan(configurations, rounds=1, options=Logged(str(self.log), SLOW))
        self.records: list[Any] = []
        self.error: BaseException | None = None
        self.kept: dict[str, bytes] = {}

    def start(self, **asked: Any) -> Campaign:
        self.error = None
        self.thread = threading.Thread(target=self._run, kwargs=asked, daemon=True)
        self.thread.start()
        return self

    def _run(self, **asked: Any) -> None:
        try:
            self.records = launch(self.plan, self.folder, engine="ray", **asked)
        except BaseException as error:
            self.error = error

    def join(self) -> None:
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()
        if self.error is not None:
            raise self.error

    def done(self) -> int:
        """How many records there are; what was there once is there still, byte for byte."""
        now = {path.name: path.read_bytes() for path in self.folder.glob("*.json")}
        assert self.kept.items() <= now.items(), "a finished record was lost or written again"
        self.kept = now
        return len(now)

    def holders(self) -> set[int]:
        """The processes that hold a point."""
        found = self.folder.glob(".*.claim/*-*-*-*")
        return {int(p.name.split("-")[1]) for p in found if "launch" not in p.parent.name}

    def wait(self, until: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not until():
            assert time.monotonic() < deadline
            assert self.thread.is_alive(), self.error
            time.sleep(0.02)

    def kill_holder(self, among: Callable[[int], bool] = lambda _: True) -> None:
        """Kill one worker in the middle of a point, at once."""
        victims: list[int] = []

        def caught() -> object:
            victims[:] = [pid for pid in self.holders() if among(pid)]
            return victims

        self.wait(caught)
        os.kill(victims[0], signal.SIGKILL)
        self.wait(lambda: victims[0] not in self.holders())

    def assert_whole(self, interrupted: int = 0) -> None:
        """Each point is there once, and was begun once, or once more for what was interrupted."""
        self.done()
        names = Counter(record.file_name for record in read_measurements(self.folder))
        assert names == Counter(self.plan.file_names())
        assert sorted(p.name for p in self.folder.iterdir()) == sorted(names)
        begun = Counter(self.log.read_text().split())
        assert set(begun) == {c.key for c in self.plan.configurations}
        assert len(names) <= begun.total() <= len(names) + interrupted


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head and a node with a device of its own, `lab`, and a GPU that is none."""
    before = _home()
    with ray_cluster() as cluster:
        add_node(cluster, GPU=1, lab=1)
        yield cluster
    assert _home() == before


def _home() -> set[str]:
    return {path.name for path in Path("~").expanduser().iterdir()}


def test_hosts_share_a_plan_and_the_devices_name_chooses_them(
    cluster: Any, tiny_source: str, tmp_path: Path
) -> None:
    campaign = Campaign(tiny_source, tmp_path, 6)
    seen: list[tuple[int, int]] = []
    workers: set[int] = set()
    campaign.start(on_progress=lambda *done: seen.append(done))
    while campaign.thread.is_alive():
        workers |= campaign.holders()
        time.sleep(0.02)
    campaign.join()
    campaign.assert_whole()
    assert [record.file_name for record in campaign.records] == campaign.plan.file_names()
    assert seen[-1] == (6, 6)
    assert len(workers) == 2
    # Ray leaves a machine's GPUs in sight of tasks without any.
    assert {r.environment["variables"]["CUDA_VISIBLE_DEVICES"] for r in campaign.records} == {""}

    alone = Campaign(tiny_source, tmp_path / "records", 2).start(device="LAB", gpus=1)
    alone.join()
    alone.assert_whole()
    assert {r.environment["variables"]["CUDA_VISIBLE_DEVICES"] for r in alone.records} == {"0"}
    with pytest.raises(UnsupportedError, match="device 'A100'; it has 2 hosts, with devices: lab"):
        launch(alone.plan, tmp_path / "none", engine="ray", device="A100")


def test_a_killed_worker_loses_one_measurement(
    cluster: Any, tiny_source: str, tmp_path: Path
) -> None:
    campaign = Campaign(tiny_source, tmp_path, 8).start()
    for _ in range(3):
        before = campaign.done()
        campaign.kill_holder()
        campaign.wait(lambda before=before: campaign.done() > before)
    campaign.join()
    campaign.assert_whole(interrupted=3)


def test_a_lost_node_and_a_preempted_one_leave_their_points_to_others(
    cluster: Any, tiny_source: str, tmp_path: Path
) -> None:
    campaign = Campaign(tiny_source, tmp_path, 12).start()
    lost, preempted = add_node(cluster), add_node(cluster)
    campaign.wait(lambda: len(campaign.holders()) == 4)
    cluster.remove_node(lost, allow_graceful=False)
    drained = subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", cluster.address,
         "--node-id", preempted.node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION",
         "--reason-message", "spot", "--deadline-remaining-seconds", "0"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert drained.returncode == 0, drained.stderr
    campaign.join()
    campaign.assert_whole(interrupted=2)
    cluster.remove_node(preempted)


def test_a_plan_file_is_measured_from_the_command_line(
    cluster: Any, tiny_source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "plan.yaml", tmp_path / "out"
    file.write_text(
        f"model: {tiny_source}\ndevice: cpu\ndtype: fp32\nvisual_tokens: [4, 1]\n"
        "text_tokens: 3\nrounds: 1\nmax_time: 0.02\n"
    )
    asked = ["profile", "--plan", str(file), "--out", str(out), "--engine", "ray"]
    assert main([*asked, "--device-name", "lab"]) == 0
    assert "2 records in" in capsys.readouterr().out
    assert len(list(out.iterdir())) == 2


def test_a_lost_head_ends_the_launch_and_another_goes_on(tiny_source: str, tmp_path: Path) -> None:
    """The workers work on until their nodes miss the head, so there are points for longer."""
    campaign = Campaign(tiny_source, tmp_path, 24)
    with ray_cluster(silent_s=1) as cluster:
        add_node(cluster)
        campaign.start()
        campaign.wait(campaign.done)
        campaign.wait(campaign.holders)
        for process in cluster.head_node.all_processes["gcs_server"]:
            process.process.kill()
        with pytest.raises(UnsupportedError, match=r"without its head; start again"):
            campaign.join()
    assert 0 < campaign.done() < 24
    with ray_cluster():
        campaign.start().join()
    campaign.assert_whole(interrupted=2)
