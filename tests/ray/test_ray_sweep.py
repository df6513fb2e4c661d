"""A sweep over a Ray cluster of two nodes: the same answer, also when a worker is killed or a node lost."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from dying_reducers import BEST, Dying
from ray_nodes import add_node, ray_cluster

from costmodel import parquet_parts, sweep
from hardware_specs.errors import UnsupportedError, VlmRooflineError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("ray", reason="Ray is not installed; `make ray` installs it")

GRID: dict[str, Any] = {
    "model": "llava-1.5-7b", "hardware": "nvidia-a100-sxm4-80gb", "calibration": None,
    "memory_margin_bytes": list(range(400)), "batch_size": range(1, 17),
}  # fmt: skip


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_cluster() as started:
        add_node(started)
        yield started


@pytest.fixture(scope="module")
def expected() -> pd.DataFrame:
    return sweep(**GRID, reduce=BEST, workers=1)


@pytest.mark.usefixtures("cluster")
def test_a_cluster_gives_the_same_answer(expected: pd.DataFrame) -> None:
    told: list[tuple[int, int]] = []
    found = sweep(
        **GRID,
        reduce=BEST,
        engine="ray",
        on_progress=lambda done, total: told.append((done, total)),
    )
    pd.testing.assert_frame_equal(found, expected)
    assert told[-1] == (7, 7)


@pytest.mark.usefixtures("cluster")
def test_a_killed_worker_costs_its_part_alone(tmp_path: Path, expected: pd.DataFrame) -> None:
    found = sweep(**GRID, reduce=Dying(str(tmp_path), 2), engine="ray")
    pd.testing.assert_frame_equal(found, expected)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.usefixtures("cluster")
def test_a_part_that_kills_every_worker_ends_the_sweep(tmp_path: Path) -> None:
    with pytest.raises(VlmRooflineError, match=r"crashed|died"):
        sweep(**GRID, reduce=Dying(str(tmp_path), 99), engine="ray")


@pytest.mark.usefixtures("cluster")
def test_what_a_worker_refuses_is_told() -> None:
    with pytest.raises(VlmRooflineError, match="fp8"):
        sweep(**GRID, precision="fp8", reduce=BEST, engine="ray")


def test_a_lost_node_costs_nothing(cluster: Any, tmp_path: Path) -> None:
    node = add_node(cluster)
    lost = threading.Timer(1.0, cluster.remove_node, [node])
    lost.start()
    files = sweep(**GRID, reduce=parquet_parts(tmp_path), engine="ray")
    lost.join()
    read = pd.concat(map(pd.read_parquet, files.file))
    assert read.time_s.tolist() == sweep(**GRID).time_s.tolist()
    with pytest.raises(VlmRooflineError, match="parts of another sweep"):
        sweep(**GRID, output_tokens=3, reduce=parquet_parts(tmp_path), engine="ray")


def test_a_lost_head_ends_the_sweep_and_its_parts_stay(tmp_path: Path) -> None:
    def lose(done: int, total: int) -> None:
        if done == 2:
            for process in cluster.head_node.all_processes["gcs_server"]:
                process.process.kill()

    longer = {**GRID, "output_tokens": list(range(16))}
    with ray_cluster(silent_s=1) as cluster, pytest.raises(UnsupportedError, match="start again"):
        sweep(**longer, reduce=parquet_parts(tmp_path), engine="ray", on_progress=lose)
    written = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.parquet")}
    assert written
    files = sweep(**longer, reduce=parquet_parts(tmp_path), workers=1)
    assert sum(files["rows"]) == 16 * len(sweep(**GRID))
    assert {file: file.stat().st_mtime_ns for file in written} == written
