"""Many configurations on one device: random interleaved order, one file per point, resumable.

Each round measures every configuration once, in an order of its own (A B C, C A B, ...), so that a
drift of the device's temperature falls on all of them alike. A point is done when its file is there
in full; a killed campaign starts again where it stopped, with the same orders, and repeats nothing.
"""

from __future__ import annotations

import gc
import itertools
import os
import warnings
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import (
    InvalidFileError,
    InvalidInputError,
    OutputError,
    VlmRooflineError,
)
from hardware_specs.files.reading import DamagedFileWarning
from hardware_specs.files.writing import output_error, prepare_folder
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
from profiling.records.measurement import shareable
from profiling.records.storage import read_measurement, write_measurement
from profiling.subject.models import build_model, model_config

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from pathlib import Path

    from torch import nn

    from profiling.instruments.nvml import DeviceMonitor
    from profiling.records.measurement import Configuration, Measurement

LOCK_NAME = ".campaign.lock"
MOST_THREADS = 4096


def run_campaign(
    configurations: Sequence[Configuration],
    folder: str | Path,
    *,
    rounds: int = 2,
    seed: int = 0,
    options: Options | Callable[[Configuration], Options] | None = None,
    weights: str = "random",
    threads: int | None = 1,
    on_plan: Callable[[int, int], None] | None = None,
    in_order: bool = False,
) -> Generator[Measurement]:
    """Measure the missing points of a folder and yield each new record once its file is written.

    Args:
        configurations: the settings to measure, see `grid`.
        folder: for the records; created when missing.
        rounds: how often each configuration is measured.
        seed: fixes the orders and the random weights.
        options: how thoroughly each point is measured, or a function that says so point by point.
        weights: `random` or `real`.
        threads: CPU threads where the device is a CPU; None leaves torch's setting.
        on_plan: is told how many points there are and how many are done already.
        in_order: measure in the given order instead of a random one.

    Raises:
        OutputError: the folder cannot be written, or another campaign is writing there.
        VlmRooflineError: see `check`.
    """
    check_rounds(rounds)
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise InvalidInputError(f"threads must lie between 1 and {MOST_THREADS}, not {threads}")
    check(configurations)
    target = prepare_folder(folder)
    points = plan(configurations, rounds=rounds, seed=seed, in_order=in_order)
    options_of = options if callable(options) else lambda _point: options or Options()
    with _only_writer(target):
        todo = [point for point in points if not is_done(target / point.file_name)]
        if on_plan is not None:
            on_plan(len(points), len(points) - len(todo))
        for _, members in itertools.groupby(todo, key=lambda point: model_key(point.configuration)):
            with _threads(group := list(members), threads):
                for record in _run_group(group, options_of, weights, seed):
                    record = replace(record, sampling=replace(record.sampling, rounds=rounds))
                    record = shareable(record)
                    write_measurement(record, target)
                    yield record


def is_done(path: Path) -> bool:
    """Return whether a point's record is there and readable; a damaged one is set aside."""
    if not path.exists():
        return False
    try:
        read_measurement(path)
    except InvalidFileError as error:
        aside = path.with_suffix(".damaged")
        try:
            path.replace(aside)
        except OSError as failure:
            raise output_error(aside, failure) from failure
        warnings.warn(
            f"{error}; kept as {aside.name}, the point is measured again",
            DamagedFileWarning,
            stacklevel=2,
        )
        return False
    return True


def _run_group(
    points: list[Point],
    options_of: Callable[[Configuration], Options],
    weights: str,
    seed: int,
) -> Iterator[Measurement]:
    first = points[0].configuration
    monitor = open_monitor(first.device)
    environment = describe_environment(first.device, monitor)
    shape = model_config(first.model)
    model: nn.Module | None = None
    failure: BaseException | None = None
    try:
        model = build_model(
            first.model, dtype=first.dtype, device=first.device, weights=weights,
            attention=first.attention, seed=seed,
        )  # fmt: skip
    except VlmRooflineError:
        raise
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        # The traceback holds the half-built model's memory.
        failure = error.with_traceback(None)
    # What is there by now stays to the end: collections between points need not look at it again.
    gc.collect()
    gc.freeze()
    try:
        for point in points:
            options = options_of(point.configuration)
            yield _run_point(point, model, shape, failure, options, monitor, environment)
    finally:
        gc.unfreeze()
        del model
        release_memory(first.device)


def _run_point(
    point: Point,
    model: nn.Module | None,
    shape: Any,
    failure: BaseException | None,
    options: Options,
    monitor: DeviceMonitor,
    environment: dict[str, Any],
) -> Measurement:
    if model is None:
        assert failure is not None  # noqa: S101  (building either gave a model or failed)
        return failed_point(
            point.configuration, failure, environment=environment,
            round_=point.round, position=point.position,
        )  # fmt: skip
    return measure_point(
        model, shape, point.configuration, options=options, monitor=monitor,
        environment=environment, round_=point.round, position=point.position,
    )  # fmt: skip


@contextmanager
def _threads(points: Sequence[Point], threads: int | None) -> Iterator[None]:
    """Run CPU points on a fixed number of threads: on a busy machine more would measure other load."""
    import torch

    before = torch.get_num_threads()
    if threads is not None and points[0].configuration.device == "cpu":
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the system lets go of it when the process dies, however it dies."""
    try:
        import fcntl
    except ImportError:  # Windows: two campaigns at once are the user's own care there.
        yield
        return
    descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OutputError(
                f"another campaign is writing to {folder}; wait for it or give another folder"
            ) from error
        yield
    finally:
        os.close(descriptor)
