"""`vlm-roofline profile`: run a model for real, one record per configuration, resumable."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hardware_specs.errors import InvalidInputError, UnsupportedError
from hardware_specs.showing import one_line
from vlm_roofline.cli.completion import completes
from vlm_roofline.cli.console import console, print_json, progress, remark, rows_of, warn
from vlm_roofline.cli.method_settings import MethodOptions, Variant, with_settings
from vlm_roofline.cli.options import (
    Attention,
    Device,
    ImageSizes,
    Json,
    ModelArgument,
    Scale,
    TextTokens,
    parse_counts,
    parse_image_size,
    parse_keep,
    refuse_threads,
    split,
    typed,
)
from vlm_roofline.cli.paths import typed_path
from vlm_roofline.cli.pictures import Fps, Pictures, Seconds, pictured, sampled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from profiling.measuring.campaign import Plan
    from profiling.records.measurement import Measurement


def profile(
    context: typer.Context,
    model: Annotated[str | None, ModelArgument.__metadata__[0]] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=typed_path,
            metavar="<path>",
            help="Folder for the records; an interrupted run goes on. Without it nothing is kept.",
        ),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            parser=typed_path,
            metavar="<path>",
            help="A YAML file that describes the campaign, in place of MODEL and its options.",
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(help="Measure part i/n of the plan only; slurm takes it from a job array."),
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Processes that share the work, with --out: one for each GPU.")
    ] = 1,
    engine: Annotated[
        str, typer.Option(help="Where --workers run: local, or ray: on each host of a cluster.")
    ] = "local",
    gpus: Annotated[int | None, typer.Option(help="With ray: GPUs of each worker.")] = None,
    device_name: Annotated[
        str | None, typer.Option(help="With ray: hosts with this device alone, such as A100.")
    ] = None,
    visual_tokens: Annotated[
        str | None,
        typer.Option(help="Counts such as 576,64,1; the model's own when absent. With a method: "
                          "the tokens it is asked to keep."),
    ] = None,
    images: Annotated[
        str | None, typer.Option(help="Images per sequence such as 1,2; one when absent.")
    ] = None,
    image_size: ImageSizes = None,
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
    text_tokens: TextTokens = 40,
    output_tokens: Annotated[int, typer.Option(help="Decode steps timed after the prefill.")] = 0,
    scale: Scale = None,
    device: Device = "cuda",
    dtype: Annotated[
        str, typer.Option(help="fp32, fp16, bf16, w8a16, int8 (w8a8), int4 (w4a16), fp8.")
    ] = "bf16",
    mode: Annotated[str, typer.Option(help="eager, cuda-graph, compile.")] = "eager",
    attention: Attention = "sdpa",
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
    """Measure a model stage by stage: vision, projector, reduction, prefill, decode.

    Under torchrun the processes share each model and measure its collectives as well; the first one writes
    and prints.
    """
    from profiling.devices.ranks import ending_together, join, world_size
    from profiling.measuring.campaign import parse_shard, run_points
    from profiling.measuring.plan_file import PlanFile, plan_of, read_plan
    from profiling.subject.models import named

    elsewhere = engine != "local"
    if plan is not None:
        for name, flag in typed(context).items():
            if name not in _BESIDE_A_PLAN:
                given = "MODEL" if name == "model" else flag
                raise InvalidInputError(f"{given} stands beside --plan; write it into the plan")
        campaign = read_plan(plan, elsewhere=elsewhere)
    elif model is None:
        raise InvalidInputError("give a MODEL, or a campaign with --plan FILE")
    else:
        from profiling.subject.inputs import sizes_of

        refuse_threads(context, device)
        asked = {
            "model": named(model, scale),
            "images": images,
            "image_size": parse_image_size(image_size),
            "frames": frames,
        }
        size = (asked | pictured(image, asked))["image_size"]
        said = PlanFile(
            model=model, scale=scale, device=device, dtype=tuple(split(dtype)),
            visual_tokens=_counts("--visual-tokens", visual_tokens), text_tokens=text_tokens,
            method=tuple(with_settings(split(method), variant=variant, options=option, layer=layer)),
            keep=None if keep is None else tuple(_keep(part) for part in split(keep)),
            batch_size=tuple(parse_counts("--batch-size", batch_size)), output_tokens=output_tokens,
            mode=tuple(split(mode)), attention=attention, cache=cache, weights=weights, rounds=rounds,
            seed=seed, threads=threads, images=_counts("--images", images),
            image_size=sizes_of(size),
            frames=sampled(fps, seconds, asked).get("frames", frames), noise=noise, max_time=max_time,
            max_foreign_load=max_foreign_load, energy=energy,
        )  # fmt: skip
        campaign = plan_of(said, elsewhere=elsewhere)
    launched = workers != 1 or elsewhere
    if not elsewhere and (gpus is not None or device_name is not None):
        raise InvalidInputError(
            "--gpus and --device-name choose hosts of a cluster; give --engine ray, or neither"
        )
    if out is None and (kernels or traces or shard is not None or launched):
        raise InvalidInputError(
            "--kernels, --traces, --shard, --workers and --engine write files; say where with --out"
        )
    if campaign.is_shared and (kernels or traces or launched):
        raise InvalidInputError(
            "--kernels, --traces, --workers and --engine are for one process, and torchrun started "
            f"{world_size()}"
        )
    if elsewhere and (kernels or traces):
        raise InvalidInputError("--kernels and --traces run here; give them or --engine ray")
    if shard is not None:
        parse_shard(shard)
        if launched:
            raise InvalidInputError("--workers share the whole plan; give them or --shard")
    crew = {"engine": engine, "workers": workers, "gpus": gpus, "device": device_name}
    group = join(campaign.configurations[0].device) if campaign.is_shared else None
    with (
        ending_together(group),
        TemporaryDirectory() if out is None else nullcontext(out) as folder,
    ):
        if group is not None and group.rank:
            # The first process writes and prints what all of them measure.
            for _ in run_points(campaign, folder, shard):
                pass
            return
        records = _run(campaign, Path(folder), shard, crew if launched else None)
    if out is not None and (kernels or traces):
        # What could not be measured, or is another shard's, has no pass either.
        ran = {record.configuration.key for record in records if record.status == "ok"}
        _run_passes(
            [each for each in campaign.configurations if each.key in ran], out, traces=traces,
            weights=campaign.weights, seed=campaign.seed,
        )  # fmt: skip
    if json:
        print_json(_document(out, records))
    else:
        _print_table(records, out)


#: What may be said beside a plan: where and by whom it is measured, and what is shown.
_BESIDE_A_PLAN = (
    "plan", "out", "shard", "workers", "engine", "gpus", "device_name", "kernels", "traces", "json",
)  # fmt: skip


def _counts(option: str, text: str | None) -> tuple[int, ...] | None:
    return None if text is None else tuple(parse_counts(option, text))


def _keep(text: str) -> int | float | None:
    return None if text == "default" else parse_keep(text)


def _run(
    plan: Plan, out: Path, shard: str | None, crew: dict[str, Any] | None
) -> list[Measurement]:
    """Measure what is missing, then read everything the plan, or its shard, names."""
    from profiling.measuring.campaign import run_points
    from profiling.measuring.launching import launch
    from profiling.records.storage import read_measurement

    def on_plan(total: int, finished: int) -> None:
        if finished and finished < total:
            remark(f"{finished} of {total} points are measured already; going on")

    names = plan.file_names()
    if shard is not None:
        mine = {point.file_name for point in plan.points(shard)}
        names = [name for name in names if name in mine]
    if crew is not None:
        told = [0]

        def on_progress(finished: int, total: int) -> None:
            if finished > told[0] and sys.stderr.isatty():
                told[0] = finished
                remark(f"{finished} of {total} points are measured")

        records = launch(plan, out, **crew, on_progress=on_progress)
    else:
        # The bar counts what is left, so that its time left is right when a campaign goes on.
        left = sum(not (out / name).exists() for name in names)
        warned = False
        campaign = run_points(plan, out, shard, on_plan=on_plan)
        for record in progress(campaign, "measuring", total=left):
            others = record.device_state.foreign_processes
            if others and not warned:
                warned = True
                warn(
                    f"{others} other processes hold memory on the device; times may not be its own"
                )
            if record.status != "ok":
                remark(one_line(f"{record.configuration.key}: {record.status}: {record.error}"))
        records = [read_measurement(out / name) for name in names]
    if records and all(record.status == "failed" for record in records):
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
    return {
        "schema_version": 1,
        "out": None if out is None else str(out),
        "points": len(records),
        "rows": rows_of(frame),
    }


def _print_table(records: Sequence[Measurement], out: Path | None) -> None:
    from vlm_roofline.cli.measurement_table import measurement_table

    console().print(measurement_table(records))
    wrong = sum(record.status != "ok" for record in records)
    tail = f", {wrong} of them not ok" if wrong else ""
    where = "not kept; --out DIR keeps them" if out is None else f"in {out}"
    console().print(f"{len(records)} records {where}{tail}")
