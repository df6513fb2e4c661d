"""How workers on a cluster are kept going, against a cluster that does as it is told."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import warnings
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from hardware_specs import cluster
from hardware_specs.errors import InvalidInputError, MissingDependencyError
from profiling.measuring import ray_engine as module
from profiling.measuring.campaign import Plan
from profiling.measuring.launching import launch
from profiling.measuring.planning import grid
from profiling.measuring.ray_engine import Crew
from vlm_roofline.cli import main

if TYPE_CHECKING:
    from pathlib import Path


class RayError(Exception):
    pass


class RayTaskError(RayError):
    cause = ValueError("no module\nnamed so")


class TaskUnschedulableError(RayError):
    pass


class ScriptedRay:
    """A cluster whose tasks end as a script says, one after the other."""

    exceptions = SimpleNamespace(
        RayError=RayError, RayTaskError=RayTaskError, TaskUnschedulableError=TaskUnschedulableError
    )

    def __init__(self, ends: list[Any], hosts: int) -> None:
        self.ends, self.started, self.asked = ends, 0, {}
        self.hosts = [
            {"NodeID": f"n{i}", "Alive": True, "Resources": {"CPU": 4}} for i in range(hosts)
        ]

    def nodes(self) -> list[dict[str, Any]]:
        return self.hosts

    def remote(self, *_: Any, **asked: Any) -> Any:
        self.asked = asked
        task = SimpleNamespace(options=lambda **_: task, remote=self._start)
        return lambda _work: task

    def _start(self, *_: Any) -> int:
        self.started += 1
        return self.started

    def wait(self, tasks: list[int], **_: Any) -> tuple[list[int], list[int]]:
        return tasks[:1], tasks[1:]

    def get(self, task: int) -> Any:
        end = self.ends[min(task, len(self.ends)) - 1]
        if isinstance(end, Exception):
            raise end
        return end


@pytest.fixture
def keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    strategies = ModuleType("ray.util.scheduling_strategies")
    strategies.NodeAffinitySchedulingStrategy = lambda node, soft: (node, soft)  # type: ignore[attr-defined]
    for name in ("ray", "ray.util"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, strategies.__name__, strategies)
    monkeypatch.setattr(module, "FIRST_REST_S", 0.0)
    monkeypatch.setattr(module, "LONGEST_REST_S", 0.0)
    monkeypatch.setattr(module, "POLL_S", 0.0)
    plan = Plan(grid(["llava-1.5-7b"], device="cpu"), threads=3)

    def run(ends: list[Any], hosts: int = 1, **crew: Any) -> tuple[str | None, ScriptedRay]:
        ray = ScriptedRay(ends, hosts)
        wanted = Crew(**{"workers": 1, "gpus": 0, "cpus": 3, "device": None} | crew)
        return module._keep_working(ray, plan, tmp_path, wanted, tmp_path), ray

    return run


def test_a_worker_that_dies_is_followed_by_another(keep: Any) -> None:
    reason, ray = keep([RayError("killed"), TaskUnschedulableError("drained"), None])
    assert (reason, ray.started) == (None, 3)
    assert ray.asked == {"num_cpus": 3, "num_gpus": 0, "max_retries": 0, "max_calls": 1}


def test_a_point_that_kills_every_worker_ends_the_launch(keep: Any) -> None:
    reason, ray = keep([RayError("killed")], hosts=2)
    assert reason == "6 workers in a row died and finished no point, the last: killed"
    assert ray.started <= 8


def test_hosts_that_refuse_are_left_out(keep: Any) -> None:
    reason, ray = keep(["a host does not see out", RayTaskError()], hosts=2)
    assert (reason, ray.started) == ("a host does not see out", 2)
    assert keep([RayTaskError()])[0] == "a worker failed: no module named so"
    assert keep(["refused", None], hosts=2)[0] is None


def test_a_cluster_without_such_hosts_says_what_it_has(keep: Any) -> None:
    assert keep([None], gpus=2, device="A100")[0] == (
        "no host of the cluster has 2 GPUs and 3 CPUs and device 'A100'; it has 1 hosts, with devices: none"
    )


def test_a_crew_fits_its_plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plan = Plan(grid(["llava-1.5-7b"]))
    monkeypatch.setattr(cluster, "find_spec", lambda _name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'vlm-roofline\[ray\]'"):
        launch(plan, tmp_path, engine="ray")
    monkeypatch.setattr(cluster, "find_spec", lambda _name: True)
    assert Crew.of(plan, 2, None, "A100") == Crew(2, 1, 1, "A100")
    with pytest.raises(InvalidInputError, match="1 to 1024 GPUs, not 0"):
        Crew.of(plan, 1, 0, None)
    with pytest.raises(InvalidInputError, match="choose hosts of a cluster"):
        launch(Plan(grid(["llava-1.5-7b"], device="cpu")), tmp_path, gpus=1)
    assert (
        main(["profile", "llava-1.5-7b", "--engine", "ray", "--out", str(tmp_path), "--kernels"])
        == 2
    )


def test_a_folder_that_a_host_does_not_share_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ray = ModuleType("ray")
    ray.get_gpu_ids = list  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    plan = Plan(grid(["llava-1.5-7b"], device="cpu"))
    with module._seen_by_all(tmp_path) as mark:
        assert "share it" in (module.work(plan, tmp_path, tmp_path / "else") or "")
        assert mark.is_dir()
    assert not list(tmp_path.iterdir())


def test_what_a_killed_launch_left_is_cleared(tmp_path: Path) -> None:
    def die() -> None:
        with module._seen_by_all(tmp_path):
            os.kill(os.getpid(), signal.SIGKILL)

    with warnings.catch_warnings():
        # Python 3.12 warns of forking beside threads; the child only runs what it is given.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = multiprocessing.get_context("fork").Process(target=die)
        child.start()
    child.join()
    assert len(list(tmp_path.iterdir())) == 1
    with module._seen_by_all(tmp_path):
        assert len(list(tmp_path.iterdir())) == 1
    assert not list(tmp_path.iterdir())
