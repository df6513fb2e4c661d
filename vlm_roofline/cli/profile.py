"""`vlm-roofline profile`: run a model for real, one record per configuration, resumable."""

from __future__ import annotations

from contextlib import nullcontext
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hardware_specs.errors import InvalidInputError, UnsupportedError
from hardware_specs.showing import one_line
from vlm_roofline.cli.completion import completes
from vlm_roofline.cli.console import console, print_json, progress, remark, warn
from vlm_roofline.cli.method_settings import MethodOptions, Variant, with_settings
from vlm_roofline.cli.options import (
    Json,
    ModelArgument,
    parse_counts,
    parse_image_size,
    parse_keep,
    split,
)
from vlm_roofline.cli.pictures import Fps, Pictures, Seconds, pictured, sampled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from profiling.records.measurement import Measurement


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("profile")(profile)


def profile(
    model: ModelArgument,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the records; an interrupted run goes on. Without it nothing is kept."),
    ] = None,
    visual_tokens: Annotated[
        str | None,
        typer.Option(help="Counts such as 576,64,1; the model's own when absent. With a method: "
                          "the tokens it is asked to keep."),
    ] = None,
    images: Annotated[
        str | None, typer.Option(help="Images per sequence such as 1,2; one when absent.")
    ] = None,
    image_size: Annotated[
        str | None, typer.Option(help="HEIGHTxWIDTH of every image, or one for each: 480x640+336x336.")
    ] = None,
    image: Pictures = None,
    frames: Annotated[int | None, typer.Option(help="Frames of a clip, in place of images.")] = None,
    fps: Fps = None,
    seconds: Seconds = None,
    method: Annotated[
        str, typer.Option(help="Methods such as none,divprune.", autocompletion=completes("method"))
    ] = "none",
    keep: Annotated[
        str | None,
        typer.Option(help="What methods keep: counts, ratios, or `default` for the published one."),
    ] = None,
    layer: Annotated[int | None, typer.Option(help="Layer K of methods inside the LLM.")] = None,
    variant: Variant = None,
    option: MethodOptions = None,
    batch_size: Annotated[str, typer.Option(help="Batch sizes such as 1,8.")] = "1",
    text_tokens: Annotated[int, typer.Option(help="Text tokens per sequence.")] = 40,
    output_tokens: Annotated[int, typer.Option(help="Decode steps timed after the prefill.")] = 0,
    scale: Annotated[
        str | None, typer.Option(help="Run a smaller shape, such as layers=4,width=1/4.")
    ] = None,
    device: Annotated[str, typer.Option(help="cuda, cuda:N or cpu.")] = "cuda",
    dtype: Annotated[
        str, typer.Option(help="fp32, fp16, bf16, w8a16, int8 (w8a8), int4 (w4a16), fp8.")
    ] = "bf16",
    mode: Annotated[str, typer.Option(help="eager, cuda-graph, compile.")] = "eager",
    attention: Annotated[str, typer.Option(help="Attention of transformers: sdpa, eager.")] = "sdpa",
    cache: Annotated[str, typer.Option(help="warm, or cold: caches emptied before each run.")] = "warm",
    weights: Annotated[str, typer.Option(help="random, or real (safetensors).")] = "random",
    rounds: Annotated[int, typer.Option(help="Times each configuration is measured.")] = 2,
    seed: Annotated[int, typer.Option(help="Of the order and the weights.")] = 0,
    noise: Annotated[float, typer.Option(help="Aim: interquartile range over median.")] = 0.02,
    max_time: Annotated[float, typer.Option(help="Seconds of sampling per point at most.")] = 15.0,
    threads: Annotated[int, typer.Option(help="Threads on a CPU.")] = 1,
    max_foreign_load: Annotated[
        float | None,
        typer.Option(help="On a CPU: wait for moments when others use less of one processor."),
    ] = None,
    energy: Annotated[bool, typer.Option(help="Measure energy where the device can.")] = True,
    kernels: Annotated[
        bool, typer.Option("--kernels", help="Add a profiler pass: time by op, beside the records.")
    ] = False,
    traces: Annotated[
        bool, typer.Option("--traces", help="Keep the passes' Chrome traces; implies --kernels.")
    ] = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Measure a model stage by stage: vision, projector, reduction, prefill, decode."""
    from costmodel.models.model import image_sizes
    from profiling.measuring.planning import check, check_rounds, grid
    from profiling.subject.models import check_weights, named

    check_rounds(rounds)
    check_weights(weights)
    options = _options(noise, max_time, energy, device, max_foreign_load)
    asked = {
        "model": named(model, scale),
        "images": images,
        "image_size": parse_image_size(image_size),
        "frames": frames,
    }
    size = (asked | pictured(image, asked))["image_size"]
    configurations = grid(
        [named(model, scale)],
        dtypes=split(dtype),
        visual_tokens=[None]
        if visual_tokens is None
        else parse_counts("--visual-tokens", visual_tokens),
        methods=with_settings(split(method), variant=variant, options=option, layer=layer),
        keeps=[_keep(part) for part in split(keep)],
        batch_sizes=parse_counts("--batch-size", batch_size),
        modes=split(mode),
        text_tokens=text_tokens,
        output_tokens=output_tokens,
        device=device,
        attention=attention,
        cache=cache,
        images=[None] if images is None else parse_counts("--images", images),
        image_sizes=[each for each in image_sizes(size, None) if each is not None],
        frames=sampled(fps, seconds, asked).get("frames", frames),
    )
    check(configurations)
    if out is None and (kernels or traces):
        raise InvalidInputError("--kernels and --traces write files; say where with --out")
    with TemporaryDirectory() if out is None else nullcontext(out) as folder:
        records = _run(
            configurations, Path(folder), rounds=rounds, seed=seed, weights=weights, threads=threads,
            options=options,
        )  # fmt: skip
    if out is not None and (kernels or traces):
        _run_passes(configurations, out, traces=traces, weights=weights, seed=seed)
    if json:
        print_json(_document(out, records))
    else:
        _print_table(records, out)


def _keep(text: str) -> int | float | None:
    return None if text == "default" else parse_keep(text)


def _options(
    noise: float, max_time: float, energy: bool, device: str, max_foreign_load: float | None
) -> Any:
    from profiling.measuring.point import Options
    from profiling.measuring.stopping import StopRule, WarmUpRule

    if not 0 < noise < 1:
        raise InvalidInputError(f"--noise is a share such as 0.02, not {noise}")
    if not 0 < max_time < inf:
        raise InvalidInputError(f"--max-time must be positive and finite, not {max_time}")
    # A CPU has no clocks to wait for; a GPU needs seconds to reach its own.
    warm_up_s = min(3.0 if device.startswith("cuda") else 0.3, max_time)
    return Options(
        rule=StopRule(target_dispersion=noise, max_time_s=max_time, min_time_s=min(0.5, max_time)),
        warm_up=WarmUpRule(min_time_s=warm_up_s, max_time_s=max(warm_up_s, min(10.0, max_time))),
        energy=energy,
        max_foreign_load=max_foreign_load,
        patience_s=10.0 if max_foreign_load is None else 300.0,
    )


def _run(
    configurations: Sequence[Any], out: Path, *, rounds: int, **rest: Any
) -> list[Measurement]:
    """Measure what is missing, then read everything the grid names."""
    from profiling.measuring.campaign import run_campaign
    from profiling.records.measurement import record_name
    from profiling.records.storage import read_measurement

    def on_plan(total: int, finished: int) -> None:
        if finished and finished < total:
            remark(f"{finished} of {total} points are measured already; going on")

    # The bar counts what is left, so that its time left is right when a campaign goes on.
    left = sum(
        not (out / record_name(configuration, round_)).exists()
        for configuration in configurations
        for round_ in range(rounds)
    )
    warned = False
    campaign = run_campaign(configurations, out, rounds=rounds, on_plan=on_plan, **rest)
    for record in progress(campaign, "measuring", total=left):
        others = record.device_state.foreign_processes
        if others and not warned:
            warned = True
            warn(f"{others} other processes hold memory on the device; times may not be its own")
        if record.status != "ok":
            remark(one_line(f"{record.configuration.key}: {record.status}: {record.error}"))
    records = [
        read_measurement(out / record_name(configuration, round_))
        for configuration in configurations
        for round_ in range(rounds)
    ]
    if all(record.status == "failed" for record in records):
        raise UnsupportedError(f"no point could be measured: {records[0].error}")
    return records


def _run_passes(configurations: Sequence[Any], out: Path, **rest: Any) -> None:
    """Profile each configuration once, apart from its timed runs."""
    from profiling.measuring.kernel_pass import run_kernel_passes

    passes = run_kernel_passes(configurations, out, **rest)
    for configuration, path in progress(passes, "profiling", total=len(configurations)):
        if path is None:
            remark(f"{configuration.key}: out of memory under the profiler")


def _document(out: Path | None, records: Sequence[Measurement]) -> dict[str, Any]:
    from profiling.records.frame import measurements_frame

    frame = measurements_frame((record.file_name, record) for record in records)
    rows = [
        {name: None if value != value else value for name, value in row.items()}
        for row in frame.astype(object).to_dict("records")
    ]
    return {
        "schema_version": 1,
        "out": None if out is None else str(out),
        "points": len(records),
        "rows": rows,
    }


def _print_table(records: Sequence[Measurement], out: Path | None) -> None:
    from vlm_roofline.cli.measurement_table import measurement_table

    console().print(measurement_table(records))
    wrong = sum(record.status != "ok" for record in records)
    tail = f", {wrong} of them not ok" if wrong else ""
    where = "not kept; --out DIR keeps them" if out is None else f"in {out}"
    console().print(f"{len(records)} records {where}{tail}")
