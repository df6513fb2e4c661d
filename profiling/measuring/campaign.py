"""Many configurations: random interleaved order, one file per point, resumable, any number of workers.

Each round measures every configuration once, in an order of its own (A B C, C A B, ...), so that a
drift of the device's temperature falls on all of them alike. A point is done when its file is there
in full; a killed campaign starts again where it stopped, with the same orders, and repeats nothing.
Workers that share a folder, on one machine or many, claim each point before they measure it.
"""

from __future__ import annotations

import gc
import itertools
import os
import time
import warnings
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from costmodel.kinds import refused
from costmodel.models import load_model
from hardware_specs.errors import InvalidFileError, InvalidInputError, VlmRooflineError, check_kind
from hardware_specs.files.claiming import STALE_S, Claims
from hardware_specs.files.reading import DamagedFileWarning
from hardware_specs.files.writing import output_error, prepare_folder
from hardware_specs.showing import shown
from profiling.devices.ranks import join
from profiling.instruments.environment import describe_environment
from profiling.instruments.nvml import open_monitor
from profiling.measuring.planning import Point, check, check_rounds, model_key, plan
from profiling.measuring.point import (
    Options,
    failed_point,
    is_out_of_memory,
    measure_point,
    release_memory,
)
from profiling.measuring.together import WAIT, Sharing, follow
from profiling.records.measurement import record_name, shareable
from profiling.records.storage import read_measurement, write_measurement
from profiling.subject.models import build_model

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import nn

    from profiling.records.measurement import Configuration, Measurement

MOST_THREADS = 4096
#: What torch's generators take.
MOST_SEED = 2**63 - 1
#: Between two looks at points that other workers hold, in seconds.
POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Plan:
    """A campaign: its points, each with the name of its record as a stable id, and how they are measured.

    Args:
        configurations: the settings to measure, see `grid`.
        rounds: how often each configuration is measured.
        seed: fixes the orders and the random weights.
        options: how thoroughly each point is measured, or a function that says so point by point.
        weights: `random` or `real`.
        threads: CPU threads where the device is a CPU; None leaves torch's setting.
        in_order: measure in the given order instead of a random one.
    """

    configurations: Sequence[Configuration]
    rounds: int = 2
    seed: int = 0
    options: Options | Callable[[Configuration], Options] | None = None
    weights: str = "random"
    threads: int | None = 1
    in_order: bool = False

    def check(self, *, elsewhere: bool = False) -> None:
        """Reject an impossible campaign before anything is measured.

        Args:
            elsewhere: it is measured on other machines, whose devices this one need not have.

        Raises:
            VlmRooflineError: see `profiling.measuring.planning.check`.
        """
        check_rounds(self.rounds)
        limits = (("threads", 1, MOST_THREADS), ("seed", 0, MOST_SEED))
        for name, least, most in limits:
            value = getattr(self, name)
            if value is None and name == "threads":
                continue
            if type(value) is not int or not least <= value <= most:
                raise refused(name, f"a whole number from {least} to {most}", value)
        check(self.configurations, elsewhere=elsewhere)
        watched = isinstance(self.options, Options) and self.options.max_foreign_load is not None
        if self.is_shared and watched:
            raise InvalidInputError(
                "max_foreign_load is watched beside one process: those that share a model load the CPU too"
            )

    def shared_by(self, processes: int) -> Plan:
        """Return the same plan for so many processes that share each model (`torchrun`)."""
        shared = [replace(each, tp=processes) for each in self.configurations]
        return replace(self, configurations=shared)

    def points(self, shard: str | None = None) -> list[Point]:
        """Return the points in the order they are measured; of shard `i/n` every n-th from the i-th."""
        points = plan(
            self.configurations, rounds=self.rounds, seed=self.seed, in_order=self.in_order
        )
        if shard is None:
            return points
        first, step = parse_shard(shard)
        return points[first - 1 :: step]

    @property
    def is_shared(self) -> bool:
        """Return whether several processes share each model."""
        return any(each.tp > 1 for each in self.configurations)

    def file_names(self) -> list[str]:
        """Return the names of all records, the first round of every configuration first."""
        return [
            record_name(configuration, round_)
            for round_ in range(self.rounds)
            for configuration in self.configurations
        ]


def parse_shard(shard: str, environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Return (i, n) of a shard `i/n`, counted from 1; `slurm` takes them from a job array's variables.

    Args:
        shard: `i/n` or `slurm`.
        environment: where SLURM_ARRAY_TASK_ID, _COUNT, _MIN and _STEP are; an array of any start and
            step will do. Arrays with gaps, such as `--array=1,2,5`, need `i/n`.

    Raises:
        InvalidInputError: neither, or i is not one of 1 to n.

    >>> parse_shard("2/4")
    (2, 4)
    >>> parse_shard("slurm", {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "1",
    ...                       "SLURM_ARRAY_TASK_STEP": "3", "SLURM_ARRAY_TASK_COUNT": "4"})
    (3, 4)
    """
    text = shard
    try:
        if shard == "slurm":
            task, count, least, step = (
                environment.get(f"SLURM_ARRAY_TASK_{name}", default)
                for name, default in (("ID", ""), ("COUNT", ""), ("MIN", "1"), ("STEP", "1"))
            )
            text = f"slurm, task {task or '-'} of {count or '-'} from {least} by {step},"
            index, uneven = divmod(int(task) - int(least), int(step))
            first, number = index + 1, int(count)
            if uneven:
                raise ValueError
        else:
            first, number = (int(part) for part in shard.split("/"))
        if not 1 <= first <= number:
            raise ValueError
    except (ValueError, ZeroDivisionError):
        raise InvalidInputError(
            f"shard {text if shard == 'slurm' else shown(shard)} is neither i/n with i from 1 to n, such as "
            "1/4, nor slurm in a job array"
        ) from None
    return first, number


def run_points(
    plan: Plan,
    folder: str | Path,
    shard: str | None = None,
    *,
    on_plan: Callable[[int, int], None] | None = None,
    stale_s: float = STALE_S,
) -> Generator[Measurement]:
    """Measure a plan's missing points and yield each new record once its file is written.

    Any number of workers may share the folder. Points that others hold are left to them, and waited
    for at the end: a worker that dies loses its claim, on the same machine at once.

    Processes that share a model (`torchrun`) are one worker: each of them calls this, and the first one
    yields and writes the records.

    Args:
        plan: the campaign.
        folder: for the records; created when missing.
        shard: `i/n` for the i-th of n parts, `slurm` for a job array's; None for all.
        on_plan: is told how many points there are and how many are done already.
        stale_s: seconds after which a claim that nobody touched is taken over.

    Raises:
        OutputError: the folder cannot be written.
        InvalidInputError: no such shard.
        RankError: one of several processes failed.
        VlmRooflineError: see `Plan.check`.
    """
    check_kind("plan", plan, Plan, "a Plan")
    plan.check()
    points = plan.points(shard)
    group = join(points[0].configuration.device) if plan.is_shared else None
    if group is not None and group.rank:
        _follow(plan, points, Sharing(group))
        return
    sharing = None if group is None else Sharing(group)
    target = prepare_folder(folder)
    claims = Claims(stale_s)
    left = []
    for point in points:
        path = target / point.file_name
        if _damage(path) is None:
            claims.clear(path)
        else:
            left.append(point)
    if on_plan is not None:
        on_plan(len(points), len(points) - len(left))
    while left:
        held: list[Point] = []
        for _, members in itertools.groupby(left, key=lambda point: model_key(point.configuration)):
            alike = list(members)
            device = alike[0].configuration.device
            with torch_threads(device, plan.threads), _subject(plan, sharing) as measure:
                for point in alike:
                    path = target / point.file_name
                    with claims.holding(path) as is_held:
                        record = None
                        if is_held is None:
                            held.append(point)
                        elif _is_missing(path):
                            if group is not None:
                                group.same(point.file_name)
                            record = measure(point)
                            if is_held():
                                write_measurement(record, target)
                            else:  # this process stood still, and another has the point
                                record = None
                                held.append(point)
                    if record is not None:
                        yield record
        left = [point for point in held if _damage(target / point.file_name) is not None]
        if left:
            time.sleep(POLL_S)
            if group is not None:
                group.same(WAIT)
    if group is not None:
        group.same("")


def _follow(plan: Plan, points: Sequence[Point], sharing: Sharing) -> None:
    """Measure what the first of several processes asks for, with the last model kept for the next point."""
    named = {point.file_name: point for point in points}
    with ExitStack() as stack:
        loaded: dict[tuple[str, ...], Callable[[Point], Measurement]] = {}

        def measure(name: str) -> None:
            point = named[name]
            key = model_key(point.configuration)
            if key not in loaded:
                stack.close()
                loaded.clear()
                stack.enter_context(torch_threads(point.configuration.device, plan.threads))
                loaded[key] = stack.enter_context(_subject(plan, sharing))
            loaded[key](point)

        with sharing.group.guarded("the next point"):
            follow(sharing.group, measure)


def run_campaign(
    configurations: Sequence[Configuration],
    folder: str | Path,
    *,
    on_plan: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> Generator[Measurement]:
    """Measure the missing points of a folder: `run_points` of `Plan(configurations, **settings)`.

    Raises:
        VlmRooflineError: see `run_points`.
    """
    return run_points(Plan(configurations, **settings), folder, on_plan=on_plan)


def _damage(path: Path) -> str | None:
    """Return what is wrong with a point's record: empty text where there is none, None if it is whole."""
    if not path.exists():
        return ""
    try:
        read_measurement(path)
    except InvalidFileError as error:
        return str(error)
    return None


def _is_missing(path: Path) -> bool:
    """Return whether a claimed point has no whole record; a damaged one is set aside."""
    damage = _damage(path)
    if damage:
        aside = path.with_suffix(".damaged")
        try:
            path.replace(aside)
        except OSError as failure:
            raise output_error(aside, failure) from failure
        warnings.warn(
            f"{damage}; kept as {aside.name}, the point is measured again",
            DamagedFileWarning,
            stacklevel=3,
        )
    return damage is not None


@contextmanager
def _subject(
    plan: Plan, sharing: Sharing | None = None
) -> Iterator[Callable[[Point], Measurement]]:
    """Give what measures points that share a model; the first of them builds it, or its share of it."""
    built: dict[str, Any] = {}

    def measure(point: Point) -> Measurement:
        asked = point.configuration
        if not built:
            built["device"] = asked.device
            built["monitor"] = open_monitor(asked.device)
            built["environment"] = describe_environment(asked.device, built["monitor"])
            built["model"], built["failure"] = _build(asked, plan, sharing)
            # What is there by now stays to the end: collections between points need not look again.
            # Objects that the caller froze stay frozen; Python 3.12 freezes a few hundred by itself.
            built["froze"] = gc.get_freeze_count() < len(gc.get_objects())
            if built["froze"]:
                gc.collect()
                gc.freeze()
        options = plan.options(asked) if callable(plan.options) else plan.options
        where = {
            "environment": built["environment"], "round_": point.round, "position": point.position,
        }  # fmt: skip
        if built["model"] is None:
            record = failed_point(asked, built["failure"], **where)
        else:
            record = measure_point(
                built["model"], load_model(asked.model), asked, options=options or Options(),
                monitor=built["monitor"], sharing=sharing, **where,
            )  # fmt: skip
        return shareable(replace(record, sampling=replace(record.sampling, rounds=plan.rounds)))

    try:
        yield measure
    finally:
        if built:
            if built.get("froze"):
                gc.unfreeze()
            device = built["device"]
            built.clear()
            release_memory(device)


def _build(
    first: Configuration, plan: Plan, sharing: Sharing | None
) -> tuple[nn.Module | None, BaseException | None]:
    """Return the model, or what a lack of memory raised."""
    build = partial(
        build_model, first.model, dtype=first.dtype, device=first.device, weights=plan.weights,
        attention=first.attention, seed=plan.seed,
    )  # fmt: skip
    if sharing is not None:
        with sharing.group.guarded(first.model):
            return build(divide=sharing.divide), None
    try:
        return build(), None
    except VlmRooflineError:
        raise
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        # The traceback holds the half-built model's memory.
        return None, error.with_traceback(None)


@contextmanager
def torch_threads(device: str, threads: int | None) -> Iterator[None]:
    """Run on a fixed number of threads where the device is a CPU: more would measure other load.

    None, or 0, leaves torch's setting.
    """
    if not threads or device.partition(":")[0] != "cpu":
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
