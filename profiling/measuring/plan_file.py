"""Campaigns as YAML files: the arguments of `profile`, one value or a list each, under the same names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from hardware_specs.errors import InvalidFileError, InvalidInputError
from hardware_specs.files.reading import invalid, read_text, show_path
from hardware_specs.files.strict_yaml import parse_yaml
from profiling.devices.ranks import world_size
from profiling.measuring.campaign import Plan
from profiling.measuring.planning import check_rounds, grid
from profiling.measuring.point import Options
from profiling.measuring.profile import listed
from profiling.measuring.stopping import StopRule, WarmUpRule
from profiling.records.readings import STRICT
from profiling.records.storage import validated
from profiling.subject.models import check_weights, named

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class PlanFile:
    """What a plan file may say; see `profile` and `options_for` for each."""

    model: str | tuple[str, ...]
    schema_version: int = SCHEMA_VERSION
    device: str = "cuda"
    dtype: str | tuple[str, ...] = "bf16"
    visual_tokens: int | tuple[int | None, ...] | None = None
    text_tokens: int = 40
    method: str | tuple[str, ...] = "none"
    keep: int | float | tuple[int | float | None, ...] | None = None
    batch_size: int | tuple[int, ...] = 1
    output_tokens: int = 0
    mode: str | tuple[str, ...] = "eager"
    scale: str | None = None
    attention: str = "sdpa"
    cache: str = "warm"
    weights: str = "random"
    rounds: int = 2
    seed: int = 0
    threads: int | None = 1
    images: int | tuple[int | None, ...] | None = None
    image_size: tuple[tuple[int, int], ...] = ()
    frames: int | None = None
    noise: float = 0.02
    max_time: float = 15.0
    max_foreign_load: float | None = None
    energy: bool = True

    __pydantic_config__ = STRICT


def read_plan(path: str | Path, *, elsewhere: bool = False) -> Plan:
    """Return the campaign that a YAML file describes, checked.

    A file with `model: llava-1.5-7b`, `visual_tokens: [576, 64]` and `rounds: 3` has six points.

    Args:
        path: of the file.
        elsewhere: it is measured on other machines, whose devices this one need not have.

    Raises:
        InvalidFileError: no such file, no YAML, an unknown key, or a value that is none of its argument.
        VlmRooflineError: the campaign is impossible, see `Plan.check`.
    """
    try:
        document = parse_yaml(read_text(path, "plan"))
    except InvalidFileError as error:
        raise invalid(path, error) from None
    failed = f"{show_path(path)} is no plan of a campaign"
    if not isinstance(document, dict):
        raise InvalidFileError(f"{failed}: it has no keys such as model: llava-1.5-7b")
    said = validated(PlanFile, json.dumps(document, default=str), failed, SCHEMA_VERSION)
    if said.schema_version != SCHEMA_VERSION:
        raise InvalidFileError(
            f"{failed}: schema_version {said.schema_version}; known is {SCHEMA_VERSION}"
        )
    try:
        return plan_of(said, elsewhere=elsewhere)
    except InvalidInputError as error:
        raise InvalidFileError(f"{failed}: {error}") from error


def plan_of(said: PlanFile, *, elsewhere: bool = False) -> Plan:
    """Return the campaign that a plan describes, checked; arguments and errors as `read_plan`."""
    check_rounds(said.rounds)
    check_weights(said.weights)
    configurations = grid(
        [named(model, said.scale) for model in listed(said.model)],
        dtypes=listed(said.dtype),
        visual_tokens=listed(said.visual_tokens),
        methods=listed(said.method),
        keeps=[] if said.keep is None else listed(said.keep),
        batch_sizes=listed(said.batch_size),
        modes=listed(said.mode),
        text_tokens=said.text_tokens,
        output_tokens=said.output_tokens,
        device=said.device,
        attention=said.attention,
        cache=said.cache,
        images=listed(said.images),
        image_sizes=said.image_size,
        frames=said.frames,
    )
    options = options_for(
        said.noise, said.max_time, said.energy, said.device, said.max_foreign_load
    )
    plan = Plan(
        configurations, rounds=said.rounds, seed=said.seed, options=options, weights=said.weights,
        threads=said.threads,
    ).shared_by(world_size())  # fmt: skip
    plan.check(elsewhere=elsewhere)
    return plan


def options_for(
    noise: float, max_time: float, energy: bool, device: str, max_foreign_load: float | None
) -> Options:
    """Return how thoroughly points are measured.

    Args:
        noise: where sampling may stop: interquartile range over median.
        max_time: seconds of sampling per point at most.
        energy: measure energy where the device can.
        device: `cuda`, `cuda:N` or `cpu`.
        max_foreign_load: on a CPU, what others may use of one processor.

    Raises:
        InvalidInputError: a value out of its range.

    >>> options_for(0.02, 2.0, True, "cuda", None).warm_up.min_time_s
    2.0
    """
    if not 0 < noise < 1:
        raise InvalidInputError(f"noise must be a share such as 0.02, not {noise}")
    if not 0 < max_time < inf:
        raise InvalidInputError(f"max_time must be positive and finite, not {max_time}")
    if max_foreign_load is not None and device.startswith("cuda"):
        raise InvalidInputError(
            f"max_foreign_load is watched on a CPU alone, and the device is {device}; leave it out"
        )
    # A CPU has no clocks to wait for; a GPU needs seconds to reach its own.
    warm_up_s = min(3.0 if device.startswith("cuda") else 0.3, max_time)
    return Options(
        rule=StopRule(target_dispersion=noise, max_time_s=max_time, min_time_s=min(0.5, max_time)),
        warm_up=WarmUpRule(min_time_s=warm_up_s, max_time_s=max(warm_up_s, min(10.0, max_time))),
        energy=energy,
        max_foreign_load=max_foreign_load,
        patience_s=10.0 if max_foreign_load is None else 300.0,
    )
