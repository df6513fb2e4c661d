"""`vlm-roofline plot`: figures from the cost model alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_roofline.cli.console import console, print_json
from vlm_roofline.cli.options import Hardware, Json, parse_keep, split

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from costmodel.result import Estimate

Model = Annotated[
    str, typer.Argument(help="A model's name, a config.json or its folder, or a hub id.")
]
Out = Annotated[Path, typer.Option(help="FILE.png, FILE.svg or FILE.pdf.")]
Text = Annotated[int, typer.Option(help="Text tokens per sample.")]
Batch = Annotated[int, typer.Option(help="Samples.")]
PrecisionName = Annotated[str, typer.Option(help="As estimate: fp16, bf16, fp8, int4, ...")]
Method = Annotated[str | None, typer.Option(help="A token-reduction method.")]
Keep = Annotated[str | None, typer.Option(help="What it keeps: 64, or a ratio 0.1.")]
CalibrationName = Annotated[
    str | None, typer.Option(help="A calibration file, or a shipped one's name.")
]
Visual = Annotated[int | None, typer.Option(help="Visual tokens; the model's own when absent.")]
Output = Annotated[int, typer.Option(help="Decode steps after the prefill.")]
Execution = Annotated[str, typer.Option(help="fused, hf-eager or cuda-graph.")]


def register(app: typer.Typer) -> None:
    """Add the command with its kinds of figures to `app`."""
    group = typer.Typer(
        name="plot", no_args_is_help=True, help="Draw what the cost model says, to a file."
    )
    group.command("roofline")(roofline)
    group.command("latency")(latency)
    group.command("memory")(memory)
    app.add_typer(group)


def roofline(
    model: Model,
    hardware: Hardware,
    out: Out,
    visual_tokens: Visual = None,
    text_tokens: Text = 40,
    batch_size: Batch = 1,
    output_tokens: Output = 0,
    precision: PrecisionName = "fp16",
    method: Method = None,
    keep: Keep = None,
    execution: Execution = "fused",
    calibration: CalibrationName = None,
    json: Json = False,
) -> None:
    """Place a request's ops under the device's roofline."""
    from costmodel import estimate
    from costmodel.plots import placed_ops, plot_roofline
    from costmodel.precision import parse_precision
    from hardware_specs import get_hardware

    cost = estimate(
        model,
        hardware,
        visual_tokens=visual_tokens,
        text_tokens=text_tokens,
        batch_size=batch_size,
        output_tokens=output_tokens,
        precision=precision,
        method=method,
        keep=parse_keep(keep),
        execution=execution,
        calibration=calibration,
    )
    figure = plot_roofline(
        get_hardware(hardware),
        placed_ops(cost),
        dtype=parse_precision(precision).text.label,
        title=_scenario(cost),
    )
    _save(figure, out, json=json)


def latency(
    model: Model,
    hardware: Hardware,
    out: Out,
    most: Annotated[
        int | None, typer.Option(help="Most visual tokens; the model's own when absent.")
    ] = None,
    stage: Annotated[str, typer.Option(help="total (first token) or prefill.")] = "total",
    execution: Annotated[
        str, typer.Option(help="Plans to draw, such as hf-eager,cuda-graph,fused.")
    ] = "hf-eager,fused",
    text_tokens: Text = 40,
    batch_size: Batch = 1,
    precision: PrecisionName = "fp16",
    calibration: CalibrationName = None,
    json: Json = False,
) -> None:
    """Draw latency against visual tokens: the staircase, the host floor and the knee."""
    from costmodel.models import load_model
    from costmodel.plots import latency_curve, plot_latency
    from hardware_specs import get_hardware
    from hardware_specs.errors import InvalidInputError

    plans = split(execution)
    if not plans:
        raise InvalidInputError("--execution names no plan; give hf-eager, cuda-graph or fused")
    shared: dict[str, Any] = {
        "stage": stage, "most": most, "text_tokens": text_tokens, "batch_size": batch_size,
        "precision": precision,
    }  # fmt: skip
    curves = [
        latency_curve(model, hardware, execution=plan, calibration=calibration, **shared)
        for plan in plans
    ]
    ideal = None
    if calibration is not None:
        ideal = latency_curve(model, hardware, execution="fused", label="ideal roofline", **shared)
    state = f"calibration {_stem(calibration)}" if calibration else "ideal: a lower bound"
    title = (
        f"{load_model(model).name} {precision} on {get_hardware(hardware).name}, "
        f"batch {batch_size}, {text_tokens} text tokens, {state}"
    )
    what = "prefill time" if stage == "prefill" else "time to first token"
    _save(plot_latency(curves, title=title, what=what, ideal=ideal), out, json=json)


def memory(
    model: Model,
    hardware: Hardware,
    out: Out,
    visual_tokens: Visual = None,
    text_tokens: Text = 40,
    batch_size: Batch = 1,
    output_tokens: Output = 0,
    precision: PrecisionName = "fp16",
    method: Method = None,
    keep: Keep = None,
    execution: Execution = "hf-eager",
    json: Json = False,
) -> None:
    """Draw what is resident in each phase, and the peak."""
    from costmodel import estimate
    from costmodel.plots import plot_memory

    cost = estimate(
        model,
        hardware,
        visual_tokens=visual_tokens,
        text_tokens=text_tokens,
        batch_size=batch_size,
        output_tokens=output_tokens,
        precision=precision,
        method=method,
        keep=parse_keep(keep),
        execution=execution,
    )
    _save(plot_memory(cost.memory, title=_scenario(cost)), out, json=json)


def _scenario(cost: Estimate) -> str:
    """Say in a line which request, device and plan a figure shows."""
    from hardware_specs import get_hardware
    from hardware_specs.errors import UnknownHardwareError

    given = cost.inputs
    try:
        device = get_hardware(given["hardware"]).name
    except UnknownHardwareError:
        device = given["hardware"]
    parts = [
        f"{given['model']} {given['precision']} on {device}",
        f"{given['visual_tokens']} visual + {given['text_tokens']} text tokens",
        f"batch {given['batch_size']}",
    ]
    if given["output_tokens"]:
        parts.append(f"{given['output_tokens']} decode steps")
    if given["method"] not in (None, "none"):
        parts.append(str(given["method"]))
    parts.append(given["execution"])
    calibration = given["calibration"]
    parts.append(f"calibration {calibration}" if calibration else "uncalibrated")
    return ", ".join(parts)


def _stem(calibration: str) -> str:
    return Path(calibration).stem if calibration.endswith(".json") else calibration


def _save(figure: Figure, out: Path, *, json: bool) -> None:
    from costmodel.plots import save_figure

    path = save_figure(figure, out)
    if json:
        print_json({"out": str(path)})
    else:
        console().print(f"wrote {path}")
