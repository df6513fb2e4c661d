"""The configurations of a campaign, their order, and checks that they can be measured."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from costmodel.kinds import refused
from costmodel.models import load_model
from hardware_specs.errors import InvalidInputError, UnsupportedError, check_kind, check_list
from profiling.devices.device import device_kind
from profiling.records.measurement import Configuration, record_name
from profiling.subject.division import check_division
from profiling.subject.execution import method_for
from profiling.subject.models import QUANTISED_DTYPES, build_model, canonical_dtype
from profiling.subject.quantisation import check_device

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import nn


#: More rounds are taken for a slip of the keyboard.
MOST_ROUNDS = 10_000
#: Attention that every release of transformers runs everywhere.
ALWAYS_THERE = ("sdpa", "eager")


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
    images: Sequence[int | None] = (None,),
    image_sizes: Sequence[tuple[int, int]] = (),
    frames: int | None = None,
) -> list[Configuration]:
    """Return the configurations of a grid, every combination once.

    Without a method a visual token count is what the language model is given. With a method it is
    what the method is asked to keep, unless `keeps` says otherwise (None: the method's published
    default).

    Args:
        models: names, paths or hub ids, with their scale.
        dtypes: as `profiling.subject.models.canonical_dtype` knows them.
        visual_tokens: per sequence; None for the model's own number.
        methods: names, `none` for none.
        keeps: what methods keep; empty to use the visual token counts.
        batch_sizes: sequences per run.
        modes: `eager`, `cuda-graph`, `compile`.
        text_tokens: text tokens in the prompt.
        output_tokens: decode steps after the prefill.
        device: `cuda`, `cuda:N` or `cpu`.
        attention: attention implementation of `transformers`.
        cache: `warm` or `cold`.
        images: images in a prompt; None for one, or as many as the visual token counts say.
        image_sizes: (height, width) in pixels of every image, or one for each.
        frames: of a clip in place of images.

    Raises:
        InvalidInputError: an empty list, or a value out of its range.
        UnknownPrecisionError: an unknown dtype.

    >>> [c.visual_tokens for c in grid(["llava-1.5-7b"], visual_tokens=[64, 1], device="cpu")]
    [64, 1]
    """
    for name, values in {
        "models": models, "dtypes": dtypes, "visual_tokens": visual_tokens, "methods": methods,
        "batch_sizes": batch_sizes, "modes": modes, "images": images,
    }.items():  # fmt: skip
        check_list(name, values, "a list")
        if not list(values):
            raise InvalidInputError(f"the grid has no {name}")
    check_list("keeps", keeps, "a list")
    check_list("image_sizes", image_sizes, "a list of (height, width)")
    if any(keep is not None for keep in keeps) and set(methods) == {"none"}:
        raise InvalidInputError(
            "keep belongs to a method, and none was given; set visual_tokens instead"
        )
    configurations = []
    for model, dtype, method, batch, mode, number in itertools.product(
        models, dtypes, methods, batch_sizes, modes, images
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
                    images=number,
                    image_sizes=tuple(image_sizes),
                    frames=frames,
                )
            )
    return list(dict.fromkeys(configurations))


def check_configurations(configurations: object) -> None:
    """Raise unless there are configurations, and nothing else."""
    wanted = "a list of Configuration, such as `grid` returns"
    check_list("configurations", configurations, wanted)
    for each in cast("Iterable[object]", configurations):
        check_kind("configurations", each, Configuration, wanted)


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


def check_rounds(rounds: int) -> None:
    """Refuse a number of rounds that no campaign has.

    >>> check_rounds(0)
    Traceback (most recent call last):
    hardware_specs.errors.InvalidInputError: rounds must be a whole number from 1 to 10000, not 0
    """
    if type(rounds) is not int or not 1 <= rounds <= MOST_ROUNDS:
        raise refused("rounds", f"a whole number from 1 to {MOST_ROUNDS}", rounds)


def plan(
    configurations: Sequence[Configuration],
    *,
    rounds: int = 2,
    seed: int = 0,
    in_order: bool = False,
) -> list[Point]:
    """Return the points of a campaign in the order they are measured.

    Configurations that need the same model in memory stay together; inside such a group every round
    visits them in a fresh random order.

    Args:
        configurations: the settings to measure.
        rounds: how often each configuration is measured.
        seed: fixes the orders.
        in_order: keep the given order instead, so that a campaign that is cut short has the first.

    Raises:
        InvalidInputError: fewer than one round.
    """
    check_rounds(rounds)
    groups: dict[tuple[str, ...], list[Configuration]] = {}
    for configuration in dict.fromkeys(configurations):
        groups.setdefault(model_key(configuration), []).append(configuration)
    order = []
    for key, members in groups.items():
        # Seeded by the group, so that a larger grid does not reorder what was measured already.
        generator = random.Random(f"{seed}|{'|'.join(key)}")  # noqa: S311  (no secret)
        for round_ in range(rounds):
            shuffled = members if in_order else generator.sample(members, len(members))
            order += [(configuration, round_) for configuration in shuffled]
    return [
        Point(configuration, round_, position)
        for position, (configuration, round_) in enumerate(order)
    ]


def model_key(configuration: Configuration) -> tuple[str, ...]:
    """Return what two configurations must share to run on one model in memory."""
    return (configuration.model, configuration.dtype, configuration.device, configuration.attention)


def check(configurations: Sequence[Configuration], *, elsewhere: bool = False) -> None:
    """Reject an impossible campaign before anything is measured.

    Args:
        configurations: the settings to measure.
        elsewhere: on other machines, whose devices this one need not have.

    Raises:
        UnknownModelError: no such model.
        UnknownMethodError: no such method.
        InvalidInputError: a method that refuses what it was asked to keep, or another number of processes
            than are to share the model.
        DeviceUnavailableError: no such device.
        UnsupportedError: the device cannot run a dtype or a mode, or has no such attention; several processes
            cannot.
    """
    check_configurations(configurations)
    for configuration in configurations:
        kind = device_kind(configuration.device, elsewhere=elsewhere)
        shape = load_model(configuration.model)
        if configuration.dtype in QUANTISED_DTYPES and not (elsewhere and kind == "cuda"):
            check_device(configuration.dtype, configuration.device)
        if configuration.mode == "cuda-graph" and kind != "cuda":
            raise UnsupportedError("mode 'cuda-graph' needs a CUDA device; use eager or compile")
        if configuration.attention not in ALWAYS_THERE and not elsewhere:
            _shape_only(configuration.model, configuration.attention)
        if configuration.method != "none":
            if shape.vision is None:
                raise UnsupportedError(
                    f"method {configuration.method!r} reduces visual tokens, and {shape.name} "
                    "has none"
                )
            _check_method(configuration)
        if not elsewhere or configuration.tp > 1:
            check_division(configuration, shape, _shape_only)


def _check_method(configuration: Configuration) -> None:
    """Check a method by putting it into a model of the same shape without weights."""
    from token_reduction import reduce_tokens

    method = method_for(configuration)
    with reduce_tokens(_shape_only(configuration.model), method):
        pass


@lru_cache(maxsize=2)
def _shape_only(model: str, attention: str = "sdpa") -> nn.Module:
    shape: nn.Module = build_model(model, device="meta", attention=attention)
    return shape
