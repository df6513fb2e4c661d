"""`vlm-roofline loop`: micro-benchmarks, calibration, runs, reconciliation, report, in one command."""

from __future__ import annotations

from typing import Annotated

import typer

from hardware_specs.errors import InvalidInputError
from vlm_roofline.cli.console import bars, console, print_json
from vlm_roofline.cli.options import (
    Device,
    Json,
    NamedModel,
    TextTokens,
    WorkFolder,
    parse_counts,
    refuse_threads,
    split,
    typed,
)


def loop(
    context: typer.Context,
    out: WorkFolder,
    device: Device = "cuda",
    model: NamedModel = "llava-1.5-7b",
    scale: Annotated[
        str | None,
        typer.Option(help="Size reduction; on a CPU layers=4,width=1/4 when absent."),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="fp32, fp16, bf16, ...; fp32 on a CPU, else bf16.")
    ] = None,
    visual_tokens: Annotated[
        str, typer.Option(help="Counts of the sweep.")
    ] = "576,384,288,192,144,64,16,1",
    method: Annotated[
        str, typer.Option(help="Reducing methods run as well; empty for none.")
    ] = "divprune,prumerge,fastv",
    keep: Annotated[str, typer.Option(help="What the methods keep.")] = "144,64",
    mode: Annotated[str, typer.Option(help="eager, cuda-graph, compile.")] = "eager",
    text_tokens: TextTokens = 40,
    batch_size: Annotated[int, typer.Option(help="Sequences.")] = 1,
    output_tokens: Annotated[int, typer.Option(help="Decode steps after the prefill.")] = 4,
    rounds: Annotated[int, typer.Option(help="Times each configuration is measured.")] = 2,
    max_time: Annotated[float, typer.Option(help="Seconds of sampling per run at most.")] = 8.0,
    threads: Annotated[int, typer.Option(help="Threads on a CPU: 1, or 0 for all.")] = 1,
    max_foreign_load: Annotated[
        float | None,
        typer.Option(help="On a CPU, wait and measure again while others use more of a processor."),
    ] = None,
    json: Json = False,
) -> None:
    """Measure this device's ops, calibrate, run a model with and without reduction, explain the gap."""
    from profiling.measuring.plan_file import options_for
    from profiling.whole_loop import LoopPlan, run_loop

    refuse_threads(context, device)
    if not split(method) and "keep" in typed(context):
        raise InvalidInputError(
            "--keep is what methods keep, and --method names none; leave it out"
        )
    plan = LoopPlan(
        device=device,
        model=model,
        scale=scale,
        dtype=dtype,
        visual_tokens=tuple(parse_counts("--visual-tokens", visual_tokens)),
        methods=tuple(split(method)),
        method_tokens=tuple(parse_counts("--keep", keep)),
        modes=tuple(split(mode)),
        text_tokens=text_tokens,
        batch_size=batch_size,
        output_tokens=output_tokens,
        rounds=rounds,
        threads=threads,
        max_foreign_load=max_foreign_load,
    )
    options = options_for(0.02, max_time, True, device, max_foreign_load)
    with bars(lines=True) as update:
        found = run_loop(plan, out, options=options, on_step=update)
    if json:
        print_json(
            {
                "out": str(found.folder),
                "report": str(found.report),
                "calibration": str(found.folder / "calibration.json"),
                "hardware": found.result.hardware.id,
                "summary": found.result.summary,
            }
        )
        return
    from vlm_roofline.cli.reconcile import print_reconciliation

    print_reconciliation(found.result)
    console().print(f"{plan.full_model} on {plan.device}: {found.report}")
