"""Many configurations on one device: random interleaved order, one file per point, resumable.

Each round measures every configuration once, in an order of its own (A B C, C A B, ...), so that a
drift of the device's temperature falls on all of them alike. A point is done when its file is there
in full; a killed campaign starts again where it stopped, with the same orders, and repeats nothing.
"""

from __future__ import annotations

import gc
import itertools
import os
import random
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import InvalidFileError, InvalidInputError, OutputError, VlmRooflineError
from profiling.environment import describe_environment
from profiling.execution import method_for
from profiling.measurement import Configuration, Measurement, record_name
from profiling.models import build_model, canonical_dtype, model_config
from profiling.nvml import open_monitor
from profiling.point import (
    Options,
    failed_point,
    is_out_of_memory,
    measure_point,
    release_memory,
)
from profiling.storage import (
    DamagedFileWarning,
    clear_leftovers,
    prepare_folder,
    read_measurement,
    write_measurement,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from torch import nn

    from profiling.nvml import DeviceMonitor

LOCK_NAME = ".campaign.lock"


def grid(
    models: Sequence[str],
    *,
    dtypes: Sequence[str] = ("bf16",),
    visual_tokens: Sequence[int | None] = (None,),
    methods: Sequence[str] = ("none",),
    keeps: Sequence[int | float | None] = (),
    batch_sizes: Sequence[int] = (1,),
    modes: Sequence[str] = ("eager",),
    text_tokens: int = 40,
    output_tokens: int = 0,
    device: str = "cuda",
    attention: str = "sdpa",
    cache: str = "warm",
) -> list[Configuration]:
    """Return the configurations of a grid, every combination once.

    Without a method a visual token count is what the language model is given. With a method it is
    what the method is asked to keep, unless `keeps` says otherwise (None: the method's published
    default).

    Args:
        models: names, paths or hub ids, with their scale.
        dtypes: as `profiling.models.canonical_dtype` knows them.
        visual_tokens: per sequence; None for the model's own number.
        methods: names, `none` for none.
        keeps: what methods keep; empty to use the visual token counts.
        batch_sizes: sequences.
        modes: `eager`, `cuda-graph`, `compile`.
        text_tokens: in the prompt.
        output_tokens: decode steps.
        device: `cuda`, `cuda:N` or `cpu`.
        attention: implementation.
        cache: `warm` or `cold`.

    Raises:
        InvalidInputError: an empty list, or a value out of its range.
        UnknownPrecisionError: an unknown dtype.

    >>> [c.visual_tokens for c in grid(["llava-1.5-7b"], visual_tokens=[64, 1], device="cpu")]
    [64, 1]
    """
    for name, values in (
        ("model", models), ("dtype", dtypes), ("visual token count", visual_tokens),
        ("method", methods), ("batch size", batch_sizes), ("mode", modes),
    ):  # fmt: skip
        if not values:
            raise InvalidInputError(f"the grid has no {name}")
    configurations = []
    for model, dtype, method, batch, mode in itertools.product(
        models, dtypes, methods, batch_sizes, modes
    ):
        pairs: list[tuple[int | None, int | float | None]]
        if method != "none" and keeps:
            pairs = [(None, keep) for keep in keeps]
        else:
            pairs = [(count, None) for count in visual_tokens]
        for count, keep in pairs:
            configurations.append(
                Configuration(
                    model=model,
                    dtype=canonical_dtype(dtype),
                    method=method,
                    keep=keep,
                    visual_tokens=count,
                    text_tokens=text_tokens,
                    batch_size=batch,
                    output_tokens=output_tokens,
                    mode=mode,
                    device=device,
                    attention=attention,
                    cache=cache,
                )
            )
    return list(dict.fromkeys(configurations))


@dataclass(frozen=True, slots=True)
class Point:
    """One configuration in one round, with its place in the order."""

    configuration: Configuration
    round: int
    position: int

    @property
    def file_name(self) -> str:
        """Return the name of its record's file."""
        return record_name(self.configuration, self.round)


def plan(configurations: Sequence[Configuration], *, rounds: int = 2, seed: int = 0) -> list[Point]:
    """Return the points of a campaign in the order they are measured.

    Configurations that need the same model in memory stay together; inside such a group every round
    visits them in a fresh random order.

    Args:
        configurations: what to measure.
        rounds: how often each.
        seed: of the orders.

    Raises:
        InvalidInputError: fewer than one round.
    """
    if rounds < 1:
        raise InvalidInputError(f"a campaign has at least one round, not {rounds}")
    groups: dict[tuple[str, ...], list[Configuration]] = {}
    for configuration in dict.fromkeys(configurations):
        groups.setdefault(_model_key(configuration), []).append(configuration)
    order = []
    for key, members in groups.items():
        # Seeded by the group, so that a larger grid does not reorder what was measured already.
        generator = random.Random(f"{seed}|{'|'.join(key)}")  # noqa: S311  (no secret)
        for round_ in range(rounds):
            shuffled = generator.sample(members, len(members))
            order += [(configuration, round_) for configuration in shuffled]
    return [
        Point(configuration, round_, position)
        for position, (configuration, round_) in enumerate(order)
    ]


def _model_key(configuration: Configuration) -> tuple[str, ...]:
    return (configuration.model, configuration.dtype, configuration.device, configuration.attention)


def check(configurations: Sequence[Configuration]) -> None:
    """Refuse a campaign that cannot work before anything is measured.

    Raises:
        UnknownModelError: no such model.
        UnknownMethodError: no such method.
        InvalidInputError: a method that refuses what it was asked to keep.
        DeviceUnavailableError: no such device.
        UnsupportedError: the device cannot run a dtype, or a mode.
    """
    from hardware_specs.errors import UnsupportedError
    from profiling.clocks import device_kind
    from profiling.models import QUANTISED_DTYPES
    from profiling.quantisation import check_device

    for configuration in configurations:
        kind = device_kind(configuration.device)
        shape = model_config(configuration.model)
        if configuration.dtype in QUANTISED_DTYPES:
            check_device(configuration.dtype, configuration.device)
        if configuration.mode == "cuda-graph" and kind != "cuda":
            raise UnsupportedError("mode 'cuda-graph' needs a CUDA device; use eager or compile")
        if configuration.method != "none":
            if shape.vision is None:
                raise UnsupportedError(
                    f"method {configuration.method!r} reduces visual tokens, and {shape.name} "
                    "has none"
                )
            method_for(configuration)


def run_campaign(
    configurations: Sequence[Configuration],
    folder: str | Path,
    *,
    rounds: int = 2,
    seed: int = 0,
    options: Options | None = None,
    weights: str = "random",
    threads: int | None = 1,
    on_plan: Callable[[int, int], None] | None = None,
) -> Iterator[Measurement]:
    """Measure what is missing in a folder and yield each new record once its file is written.

    Args:
        configurations: what to measure, see `grid`.
        folder: for the records; created when missing.
        rounds: how often each configuration.
        seed: of the orders and the weights.
        options: how thoroughly.
        weights: `random` or `real`.
        threads: CPU threads where the device is a CPU; None leaves torch's setting.
        on_plan: is told how many points there are and how many are done already.

    Raises:
        OutputError: the folder cannot be written, or another campaign is writing there.
        VlmRooflineError: see `check`.
    """
    check(configurations)
    target = prepare_folder(folder)
    points = plan(configurations, rounds=rounds, seed=seed)
    with _only_writer(target):
        clear_leftovers(target)
        todo = [point for point in points if not is_done(target / point.file_name)]
        if on_plan is not None:
            on_plan(len(points), len(points) - len(todo))
        for _, members in itertools.groupby(
            todo, key=lambda point: _model_key(point.configuration)
        ):
            with _threads(group := list(members), threads):
                for record in _run_group(group, options or Options(), weights, seed):
                    record = replace(record, sampling=replace(record.sampling, rounds=rounds))
                    write_measurement(record, target)
                    yield record


def is_done(path: Path) -> bool:
    """Return whether a point's record is there and readable; a damaged one is set aside.

    Args:
        path: of the record.
    """
    if not path.exists():
        return False
    try:
        read_measurement(path)
    except InvalidFileError as error:
        aside = path.with_suffix(".damaged")
        path.replace(aside)
        warnings.warn(
            f"{error}; kept as {aside.name}, the point is measured again",
            DamagedFileWarning,
            stacklevel=2,
        )
        return False
    return True


def _run_group(
    points: list[Point], options: Options, weights: str, seed: int
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
    """Run CPU points on so many threads: on a shared machine more of them measure the others."""
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
