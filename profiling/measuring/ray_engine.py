"""Workers on the hosts of a Ray cluster, for `launch(engine="ray")`.

The claims in the folder say who measures what, as among workers of any kind; Ray places and starts
them: one task for a host, which Ray never repeats, in a process of its own that ends with it. A task
that died is started anew while the others go on, so that nothing rests on what Ray remembers.
"""

from __future__ import annotations

import os
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardware_specs.cluster import check_ray, connected
from hardware_specs.errors import InvalidInputError, VlmRooflineError
from hardware_specs.files.claiming import Claims
from hardware_specs.files.writing import prepare_folder
from hardware_specs.showing import one_line, shown
from profiling.measuring.campaign import run_points

if TYPE_CHECKING:
    import multiprocessing
    from collections.abc import Iterator, Sequence

    from profiling.measuring.campaign import Plan

POLL_S = 1.0
#: Workers that die in a row, beyond one for each host, while no point is finished.
MOST_DEATHS = 3
#: A host whose worker died gets the next one after so many seconds, each time twice as many.
FIRST_REST_S, LONGEST_REST_S = 1.0, 60.0
#: How long workers may take to let go after the last point.
ENDING_S = 10.0
MOST_GPUS = 1024


@dataclass(frozen=True, slots=True)
class Crew:
    """The workers that are wanted.

    Attributes:
        workers: on each host.
        gpus: for each worker.
        cpus: for each worker.
        device: hosts that have it; None for all.
    """

    workers: int
    gpus: int
    cpus: int
    device: str | None

    @classmethod
    def of(cls, plan: Plan, workers: int, gpus: int | None, device: str | None) -> Crew:
        """Return the crew for a plan.

        Raises:
            InvalidInputError: no such number of GPUs.
            MissingDependencyError: Ray is not installed.
        """
        check_ray()
        on_gpus = any(item.device.startswith("cuda") for item in plan.configurations)
        if gpus is None:
            gpus = int(on_gpus)
        if isinstance(gpus, bool) or not isinstance(gpus, int) or not on_gpus <= gpus <= MOST_GPUS:
            raise InvalidInputError(
                f"a worker has {int(on_gpus)} to {MOST_GPUS} GPUs, not {shown(gpus)}"
            )
        return cls(workers, gpus, 1 if on_gpus else plan.threads or 1, device)

    def hosts(self, nodes: Sequence[dict[str, Any]]) -> list[str]:
        """Return the ids of the nodes that can have such workers, as `ray.nodes` describes them.

        >>> a = {"NodeID": "a", "Alive": True, "Resources": {"CPU": 8, "GPU": 2, "accelerator_type:A100": 1}}
        >>> b = {"NodeID": "b", "Alive": True, "Resources": {"CPU": 8}}
        >>> Crew(1, 1, 1, "a100").hosts([a, b]), Crew(1, 0, 1, None).hosts([a, b])
        (['a'], ['a', 'b'])
        """
        return [
            node["NodeID"]
            for node in nodes
            if node["Alive"]
            and node["Resources"].get("GPU", 0) >= self.gpus
            and node["Resources"].get("CPU", 0) >= self.cpus
            and (self.device is None or self.device.lower() in map(str.lower, devices([node])))
        ]


def devices(nodes: Sequence[dict[str, Any]]) -> list[str]:
    """Return the names of what nodes have besides processors and memory, Ray's own or their owner's.

    >>> devices([{"Alive": True, "Resources": {"CPU": 8, "accelerator_type:A100": 1, "lab": 1}}])
    ['A100', 'lab']
    """
    plain = ("CPU", "GPU", "memory", "object_store_memory")
    names = {
        name.removeprefix("accelerator_type:")
        for node in nodes
        if node["Alive"]
        for name in node["Resources"]
        if name not in plain and not name.startswith("node:")
    }
    return sorted(names)


@dataclass(slots=True)
class _Host:
    """A node as its workers fared."""

    running: int = 0
    rest_s: float = field(default_factory=lambda: FIRST_REST_S)
    next_s: float = 0.0
    refusal: str | None = None

    def wants(self, workers: int) -> bool:
        """Return whether another worker may start here, of so many at once."""
        rested = time.monotonic() >= self.next_s
        return self.running < workers and rested and self.refusal is None


@dataclass(slots=True)
class _State:
    hosts: dict[str, _Host] = field(default_factory=dict)
    running: dict[Any, _Host] = field(default_factory=dict)
    deaths: int = 0
    last: str = ""


def drive(plan: Plan, folder: str, crew: Crew, errors: multiprocessing.SimpleQueue[str]) -> None:
    """Keep workers on a cluster until the plan is measured: the target of a process of its own.

    Args:
        plan: the campaign.
        folder: for the records; all hosts see it under this path.
        crew: the workers.
        errors: is given the reason if points are left.
    """
    try:
        target = prepare_folder(Path(folder).resolve())
        ray = connected()
        with _seen_by_all(target) as mark:
            reason = _keep_working(ray, plan, target, crew, mark)
    except Exception as error:
        reason = one_line(error, 500) or type(error).__name__
    if reason is not None:
        errors.put(reason)
        raise SystemExit(2)


@contextmanager
def _seen_by_all(folder: Path) -> Iterator[Path]:
    """Give a mark that whoever sees the folder sees in it: a claim on a file that nobody makes."""
    claims = Claims()
    for left in folder.glob(".launch-*.claim"):  # by launches that were killed
        with claims.holding(left.with_name(left.stem[1:])):
            pass
    name = f"launch-{uuid.uuid4().hex[:12]}"
    with claims.holding(folder / name):
        yield folder / f".{name}.claim"


def _keep_working(ray: Any, plan: Plan, folder: Path, crew: Crew, mark: Path) -> str | None:
    """Start workers wherever one is missing until one finds all measured; return why it came to nothing."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=crew.cpus, num_gpus=crew.gpus, max_retries=0, max_calls=1)(work)

    def start(node: str) -> Any:
        place = NodeAffinitySchedulingStrategy(node, soft=False)
        return task.options(scheduling_strategy=place).remote(plan, folder, mark)

    state, parent, left = _State(), os.getppid(), None
    while os.getppid() == parent:
        nodes = ray.nodes()
        able = crew.hosts(nodes)
        if not able and not state.running:
            return _nobody(crew, nodes)
        for node in able:
            host = state.hosts.setdefault(node, _Host())
            while host.wants(crew.workers):
                state.running[start(node)] = host
                host.running += 1
        if not state.running:
            refusals = [state.hosts[node].refusal for node in able]
            if all(refusals):
                return refusals[0]
            time.sleep(POLL_S)
            continue
        ended, _ = ray.wait(list(state.running), timeout=POLL_S)
        before, left = left, sum(not (folder / name).exists() for name in plan.file_names())
        if left != before:
            state.deaths = 0
        if any(_is_done(ray, reference, state) for reference in ended):
            ray.wait(list(state.running), num_returns=len(state.running), timeout=ENDING_S)
            return None
        if state.deaths > MOST_DEATHS + len(able) * crew.workers:
            return f"{state.deaths} workers in a row died and finished no point, the last: {state.last}"
    return "its launcher ended"


def _is_done(ray: Any, reference: Any, state: _State) -> bool:
    """Take the end of a worker; return whether it found all points measured."""
    host = state.running.pop(reference)
    host.running -= 1
    try:
        host.refusal = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        host.refusal = f"a worker failed: {one_line(error.cause, 300)}"
    except ray.exceptions.RayError as error:
        # A node that is about to go takes no worker, which is no worker's death.
        state.deaths += not isinstance(error, ray.exceptions.TaskUnschedulableError)
        state.last = one_line(error, 200)
        host.next_s = time.monotonic() + host.rest_s
        host.rest_s = min(2 * host.rest_s, LONGEST_REST_S)
    else:
        return host.refusal is None
    return False


def _nobody(crew: Crew, nodes: Sequence[dict[str, Any]]) -> str:
    wanted = f"{crew.gpus} GPUs and {crew.cpus} CPUs"
    if crew.device is not None:
        wanted += f" and device {shown(crew.device)}"
    known = ", ".join(devices(nodes)) or "none"
    alive = sum(node["Alive"] for node in nodes)
    return f"no host of the cluster has {wanted}; it has {alive} hosts, with devices: {known}"


def work(plan: Plan, folder: Path, mark: Path) -> str | None:
    """Measure on this host until all is measured; return why not.

    Args:
        plan: the campaign.
        folder: for the records.
        mark: a folder in it that whoever shares it sees.
    """
    import ray

    if not ray.get_gpu_ids():
        # Ray hides no GPU from a task that was given none.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if not mark.is_dir():
        return f"a host does not see {folder} as it is where the campaign was launched; share it"
    try:
        for _ in run_points(plan, folder):
            pass
    except VlmRooflineError as error:
        return str(error)
    return None
