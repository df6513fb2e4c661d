"""`profile`: measure configurations of one model and return the records.

Records are files first, in the folder given or in a temporary one, so that both ways are the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar

from hardware_specs.errors import InvalidInputError, check_kind
from profiling.devices.ranks import join, world_size
from profiling.measuring.campaign import Plan, run_points
from profiling.measuring.planning import grid
from profiling.records.storage import parse_measurement, read_measurement
from profiling.subject.inputs import sizes_of
from profiling.subject.models import named

if TYPE_CHECKING:
    from costmodel.methods import Method
    from costmodel.models import ModelConfig
    from costmodel.models.model import ImageSize
    from profiling.measuring.point import Options
    from profiling.records.measurement import Measurement

T = TypeVar("T")


def profile(
    model: str | ModelConfig,
    *,
    device: str = "cuda",
    dtype: str | Sequence[str] = "bf16",
    visual_tokens: int | Sequence[int | None] | None = None,
    text_tokens: int = 40,
    method: str | Method | Sequence[str | Method] = "none",
    keep: int | float | Sequence[int | float | None] | None = None,
    batch_size: int | Sequence[int] = 1,
    output_tokens: int = 0,
    mode: str | Sequence[str] = "eager",
    scale: str | None = None,
    attention: str = "sdpa",
    cache: str = "warm",
    weights: str = "random",
    rounds: int = 1,
    seed: int = 0,
    options: Options | None = None,
    threads: int | None = 1,
    out: str | Path | None = None,
    images: int | Sequence[int | None] | None = None,
    image_size: ImageSize | None = None,
    frames: int | None = None,
) -> list[Measurement]:
    """Run a model for real and return one record per configuration and round.

    Every argument that takes one value takes a list too; all combinations are measured, in random
    order. See `profiling.records.measurement.Configuration` for what each means.

    In processes that `torchrun` started each calls this; together they share every model by the
    tensor-parallel plan that transformers has for it, and each gets the records, which the first one writes.

    Args:
        model: shipped name, path of a `config.json` or its folder, hub id, or a `ModelConfig`
            that was loaded from one of them.
        device: `cuda`, `cuda:N` or `cpu`.
        dtype: `fp32`, `fp16`, `bf16`, `w8a16`, `w8a8`, `w4a16` or `fp8`.
        visual_tokens: visual tokens per sequence; None for the model's own number.
        text_tokens: text tokens per sequence.
        method: token-reduction method, by name or as `get_method` gives it; `none` for none.
        keep: what a method keeps; None to use the visual token counts.
        batch_size: sequences.
        output_tokens: decode steps after the prefill.
        mode: `eager`, `cuda-graph` or `compile`.
        scale: size reduction such as `layers=4,width=1/4`.
        attention: attention implementation of `transformers`.
        cache: `warm` or `cold`.
        weights: `random` or `real`.
        rounds: how often each configuration is measured.
        seed: fixes the order and the random weights.
        options: how thoroughly each point is measured.
        threads: CPU threads where the device is a CPU; None leaves torch's setting.
        out: folder for the records; what is there already is not measured again.
        images: images in a prompt; None for one, or as many as the visual token counts say.
        image_size: (height, width) in pixels of every image, or a list of one for each.
        frames: of a clip in place of images.

    Raises:
        VlmRooflineError: see `profiling.measuring.planning.check`.
    """
    wanted: list[str | Method] = listed(method)
    configurations = grid(
        [named(_source(model), scale)],
        dtypes=listed(dtype),
        visual_tokens=listed(visual_tokens),
        methods=[str(each) for each in wanted],
        keeps=[] if keep is None else listed(keep),
        batch_sizes=listed(batch_size),
        modes=listed(mode),
        text_tokens=text_tokens,
        output_tokens=output_tokens,
        device=device,
        attention=attention,
        cache=cache,
        images=listed(images),
        image_sizes=sizes_of(image_size),
        frames=frames,
    )
    plan = Plan(
        configurations, rounds=rounds, seed=seed, options=options, weights=weights, threads=threads
    ).shared_by(world_size())
    with TemporaryDirectory() if out is None else nullcontext(out) as folder:
        for _ in run_points(plan, folder):
            pass
        group = join(device)
        if group is not None and group.rank:
            texts: list[str] = group.same([])
            return [parse_measurement(text) for text in texts]
        records = [read_measurement(Path(folder) / name) for name in plan.file_names()]
        if group is not None:
            group.same([json.dumps(record.to_dict()) for record in records])
        return records


def _source(model: str | ModelConfig) -> str:
    """Return a name under which the same model is found again."""
    if isinstance(model, str):
        return model
    from costmodel.models import ModelConfig, load_model
    from hardware_specs.errors import UnknownModelError

    check_kind("model", model, ModelConfig, "a shipped name, a path, a hub id or a ModelConfig")
    try:
        found = load_model(model.name)
    except UnknownModelError:
        found = None
    if found != model:
        raise InvalidInputError(
            f"nothing is found again under the config's name {model.name!r}, so a record could not name it; "
            "give the path of its config.json"
        )
    return model.name


def listed(value: T | Sequence[T]) -> list[T]:
    """Return the values of an argument that takes one or a list of them."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    return [value]
