"""`launch`: workers on one campaign, on this machine or on the hosts of a Ray cluster.

Each is `run_points` on the whole plan; claims share the points out, so that a worker that dies loses
one measurement and the others take its point over.
"""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import TYPE_CHECKING

from costmodel.kinds import refused
from hardware_specs.errors import InvalidInputError, UnsupportedError, VlmRooflineError, check_kind
from hardware_specs.showing import shown
from profiling.devices.device import visible_gpus
from profiling.measuring.campaign import Plan, run_points
from profiling.measuring.ray_engine import Crew, drive
from profiling.records.storage import read_measurement

if TYPE_CHECKING:
    from collections.abc import Callable

    from profiling.records.measurement import Measurement

MOST_WORKERS = 1024


def launch(
    plan: Plan,
    folder: str | Path,
    *,
    engine: str = "local",
    workers: int = 1,
    gpus: int | None = None,
    device: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Measurement]:
    """Measure a plan with worker processes and return its records.

    A device that two workers share measures the other's load too: have one worker for each GPU, which
    then sees no other, and on CPUs one for the machine unless the processors are shared out outside.
    Processes are spawned: a script that calls this keeps the call behind `if __name__ == "__main__"`.

    Args:
        plan: the campaign.
        folder: for the records, shared with workers of other machines if there are any.
        engine: `local`, or `ray` for the cluster that RAY_ADDRESS names or that runs here.
        workers: processes, on every host of a cluster.
        gpus: of a cluster, for each worker; None for one where the plan runs on GPUs.
        device: of a cluster, hosts with this device alone, such as `A100`; None for all.
        on_progress: is told, about every second, how many points are done and how many there are.

    Raises:
        InvalidInputError: no such engine, number of workers or GPUs.
        MissingDependencyError: Ray is not installed.
        UnsupportedError: the workers ended and left points unmeasured; start again to go on.
        VlmRooflineError: see `run_points`.
    """
    check_kind("plan", plan, Plan, "a Plan")
    if engine not in ("local", "ray"):
        raise InvalidInputError(f"engine={shown(engine)} is unknown; there is: local, ray")
    if not 1 <= workers <= MOST_WORKERS:
        raise refused("workers", f"a whole number from 1 to {MOST_WORKERS}", workers)
    plan.check(elsewhere=engine == "ray")
    spawn = multiprocessing.get_context("spawn")
    errors = spawn.SimpleQueue()
    if engine == "ray":
        crew = Crew.of(plan, workers, gpus, device)
        processes = [
            spawn.Process(target=drive, args=(plan, str(folder), crew, errors), daemon=True)
        ]
    elif gpus is not None or device is not None:
        raise InvalidInputError(
            "gpus and device choose hosts of a cluster; give engine ray, or neither"
        )
    else:
        processes = [
            spawn.Process(target=_work, args=(plan, str(folder), gpu, errors), daemon=True)
            for gpu in _gpus(plan, workers)
        ]
    try:
        for process in processes:
            process.start()
        for process in processes:
            while process.is_alive():
                process.join(1.0)
                if on_progress is not None:
                    done = sum((Path(folder) / name).exists() for name in plan.file_names())
                    on_progress(done, len(plan.file_names()))
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
                process.join()
    missing = [name for name in plan.file_names() if not (Path(folder) / name).exists()]
    if missing:
        codes = ", ".join(str(process.exitcode) for process in processes)
        why = "" if errors.empty() else f": {errors.get()}"
        ended = f"the workers ended with exit codes {codes}{why}"
        if engine == "ray":
            ended = (
                why.removeprefix(": ") or "the connection to Ray broke, as it does without its head"
            )
        raise UnsupportedError(
            f"{len(missing)} of {len(plan.file_names())} points were not measured, {ended}; start again "
            "to go on"
        )
    return [read_measurement(Path(folder) / name) for name in plan.file_names()]


def _gpus(plan: Plan, workers: int) -> list[str | None]:
    """Return which GPU each worker sees; None leaves all to it."""
    if workers == 1 or any(item.device != "cuda" for item in plan.configurations):
        return [None] * workers
    names = visible_gpus()
    if workers > len(names):
        raise InvalidInputError(f"{workers} workers need as many GPUs; there are {len(names)}")
    return [*names[:workers]]


def _work(
    plan: Plan, folder: str, gpu: str | None, errors: multiprocessing.SimpleQueue[str]
) -> None:
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    try:
        for _ in run_points(plan, folder):
            pass
    except VlmRooflineError as error:
        errors.put(str(error))
        raise SystemExit(2) from None
