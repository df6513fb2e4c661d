"""The connection to a Ray cluster that is there already: the one that RAY_ADDRESS names, or runs here.

Ray ends a process whose cluster's head has been silent for a minute, so what connects is a process of its
own. It starts no cluster: Ray writes nothing into the home folder then.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

from hardware_specs.errors import MissingDependencyError, VlmRooflineError
from hardware_specs.showing import one_line


def check_ray() -> None:
    """Raise MissingDependencyError where Ray is not installed."""
    if find_spec("ray") is None:
        raise MissingDependencyError("ray", "ray")


def connected() -> Any:
    """Connect this process, silence it, and return the module `ray`.

    Ray reports at length on what is expected here; what must be told goes another way.

    Raises:
        VlmRooflineError: no cluster answers.
    """
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silence, stream)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    try:
        ray.init(address="auto", log_to_driver=False, logging_level="error")
    except Exception as error:
        raise VlmRooflineError(
            f"no Ray cluster answers ({one_line(error, 200)}); start one with `ray start --head`, or "
            "name one in RAY_ADDRESS"
        ) from error
    return ray
