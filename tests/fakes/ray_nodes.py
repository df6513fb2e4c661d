"""A Ray cluster of nodes on this machine, small, and with nothing of it outside one folder."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from profiling.measuring.point import Options
    from profiling.records.measurement import Configuration

#: Bytes of a node's object store: a plan is all that passes through it.
STORE = 80_000_000


@dataclass(frozen=True)
class Logged:
    """Options of a plan that add a line to a file whenever a point begins to be measured."""

    path: str
    options: Options

    def __call__(self, configuration: Configuration) -> Options:
        with Path(self.path).open("a") as file:
            file.write(f"{configuration.key}\n")
        return self.options


@contextmanager
def ray_cluster(silent_s: int = 60) -> Iterator[Any]:
    """Give a cluster of a head with one processor; `add_node` adds others.

    Args:
        silent_s: how long a silent head is waited for, in seconds.
    """
    import ray  # noqa: F401  (before the variables that it reads are gone)
    from ray.cluster_utils import Cluster

    # Sockets lie in it, whose paths may have 107 characters.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    Path(folder, "ray").mkdir()
    told = {
        "HOME": folder,
        "RAY_TMPDIR": folder,
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_gcs_rpc_server_reconnect_timeout_s": str(silent_s),
        "RAY_memory_monitor_refresh_ms": "0",
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(path for path in sys.path if path)),
        "OMP_NUM_THREADS": "1",
    }
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    cluster = None
    try:
        cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 1, "include_dashboard": False, "object_store_memory": STORE,
                "include_log_monitor": False, "temp_dir": f"{folder}/ray",
            },
        )  # fmt: skip
        os.environ["RAY_ADDRESS"] = cluster.address
        yield cluster
    finally:
        if cluster is not None:
            cluster.shutdown()
        os.environ.pop("RAY_ADDRESS", None)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        shutil.rmtree(folder, ignore_errors=True)


def add_node(cluster: Any, **resources: float) -> Any:
    """Add a node with one processor and what is named."""
    gpus = int(resources.pop("GPU", 0))
    return cluster.add_node(
        num_cpus=1, num_gpus=gpus, resources=resources, object_store_memory=STORE,
        include_dashboard=False,
    )  # fmt: skip
