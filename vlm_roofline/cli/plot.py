"""`vlm-roofline plot`: figures and timelines from the cost model alone."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hardware_specs.errors import InvalidInputError
from vlm_roofline.cli.console import console, print_json
from vlm_roofline.cli.options import Json, request_options, split, written_to
from vlm_roofline.cli.paths import typed_path
from vlm_roofline.cli.units import show_visual_tokens

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from costmodel.plots import LatencyCurve
    from costmodel.result import Estimate

Out = Annotated[Path, written_to("FILE.png, FILE.svg or FILE.pdf.")]


group = typer.Typer(no_args_is_help=True, help="Draw what the cost model says, to a file.")


@group.command("roofline")
@request_options("convention")
def roofline(given: dict[str, Any], *, out: Out, json: Json = False) -> None:
    """Place a request's ops under the device's roofline."""
    from costmodel import estimate
    from costmodel.plots import placed_ops, plot_roofline
    from costmodel.precision.names import parse_precision
    from hardware_specs import get_hardware

    cost = estimate(**given)
    figure = plot_roofline(
        get_hardware(given["hardware"]),
        placed_ops(cost),
        dtype=parse_precision(cost.inputs["precision"]).text.label,
        title=_scenario(cost),
        power_limit_w=given["power_limit_w"],
    )
    _save(figure, out, json=json)


@group.command("latency")
@request_options("convention", "visual_tokens", "output_tokens")
def latency(
    given: dict[str, Any],
    *,
    out: Out,
    most: Annotated[
        int | None, typer.Option(help="Most visual tokens; the model's own when absent.")
    ] = None,
    stage: Annotated[str, typer.Option(help="total (first token) or prefill.")] = "total",
    execution: Annotated[
        str, typer.Option(help="Plans to draw, such as hf-eager,cuda-graph,fused.")
    ] = "hf-eager,fused",
    json: Json = False,
) -> None:
    """Draw latency against visual tokens: the staircase, the host floor and the knee.

    Devices and methods may be several, joined by commas, as plans may.
    """
    from costmodel import estimate
    from costmodel.plans import get_plan
    from costmodel.plots import latency_curve, plot_latency
    from hardware_specs import get_hardware

    plans = split(execution)
    if not plans:
        raise InvalidInputError("--execution names no plan; give hf-eager, cuda-graph or fused")
    devices = split(given["hardware"]) or [given["hardware"]]
    methods: list[Any] = split(given["method"]) or [None]
    requests = [
        {**given, "hardware": device, "method": method, **_without_keep(method, methods)}
        for device, method in product(devices, methods)
    ]
    names = {device: get_hardware(device).name for device in devices}
    priced = [estimate(**request).inputs for request in requests]

    def curve(request: dict[str, Any], **more: Any) -> LatencyCurve:
        panel = names[request["hardware"]] if len(devices) > 1 else ""
        return latency_curve(stage=stage, most=most, panel=panel, **{**request, **more})

    curves = []
    for request, plan in product(requests, plans):
        # Only what tells the curves of a device apart is in their names.
        parts = {
            str(request["method"]): len(methods) > 1,
            get_plan(plan).label: len(plans) > 1 or len(methods) == 1,
        }
        label = ", ".join(part for part, varies in parts.items() if varies)
        curves.append(curve(request, execution=plan, label=label))
    ideal, state = [], "ideal roofline"
    if given["calibration"] != "none":
        label = f"ideal roofline, {methods[0]}" if len(methods) > 1 else "ideal roofline"
        ideal = [
            curve(request, execution="fused", calibration=None, label=label)
            for request in requests[:: len(methods)]
        ]
        laws = dict.fromkeys(each["calibration"] or "none" for each in priced)
        state = f"calibration {' and '.join(laws)}"
    inputs = priced[0]
    # Its own image's, where one was given: the curve goes through other counts as well.
    seen = f"{show_visual_tokens(inputs)} of the image, " if inputs["image_size"] else ""
    title = (
        f"{inputs['model']} {inputs['precision']} on "
        f"{' and '.join(names.values())}, batch {given['batch_size']}, "
        f"{seen}{inputs['text_tokens']} text tokens, {state}"
    )
    what = "prefill time" if stage == "prefill" else "time to first token"
    reduced = any(method not in (None, "none") for method in methods)
    across = "visual tokens " + ("before the method" if reduced else "entering the language model")
    figure = plot_latency(curves, title=title, what=what, ideal=ideal, across=across)
    _save(figure, out, json=json)


@group.command("memory")
@request_options(
    "convention", "calibration", "host_s", "request_s", "power_limit_w", execution="hf-eager"
)
def memory(given: dict[str, Any], *, out: Out, json: Json = False) -> None:
    """Draw what is resident in each phase, and the peak."""
    from costmodel import estimate
    from costmodel.plots import plot_memory

    cost = estimate(**given, calibration=None)
    _save(plot_memory(cost.memory, title=_scenario(cost)), out, json=json)


@group.command("sweep")
def sweep(
    table: Annotated[
        Path,
        typer.Argument(metavar="FILE", parser=typed_path, help="What `sweep --out` wrote."),
    ],
    out: Out,
    x: Annotated[
        str | None, typer.Option(help="Column across; the first number that varies when absent.")
    ] = None,
    y: Annotated[str, typer.Option(help="Column upwards: ttft_s, flops, ...")] = "ttft_s",
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=VALUE", help="Draw these rows alone; repeatable."),
    ] = None,
    json: Json = False,
) -> None:
    """Draw one column of a sweep against another, a curve for each setting of the rest."""
    from costmodel.calibration.tables import read_tables
    from costmodel.plots import plot_sweep

    asked = {}
    for text in where or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidInputError(f"--where {text!r} is not COLUMN=VALUE")
        asked[name.strip()] = value.strip()
    frames = [frame for _, frame in read_tables(table)]
    if len(frames) != 1:
        raise InvalidInputError(
            f"{table} holds {len(frames)} tables; give one FILE of `sweep --out`"
        )
    _save(plot_sweep(frames[0], x=x, y=y, where=asked), out, json=json)


@group.command("timeline")
@request_options("convention")
def timeline(
    given: dict[str, Any],
    *,
    out: Annotated[Path, written_to("FILE.json, for Perfetto or chrome://tracing.", ".json")],
    json: Json = False,
) -> None:
    """Write the predicted timeline as a Chrome trace: stages, layers and ops, one track a stage."""
    from json import dumps

    from costmodel import estimate
    from costmodel.timeline import timeline as drawn
    from hardware_specs.files.writing import write_file

    trace = drawn(estimate(**given))
    path = write_file(out, dumps(trace, allow_nan=False))
    if json:
        print_json({"out": str(path), "events": len(trace["traceEvents"])})
    else:
        console().print(f"wrote {path}; open it at ui.perfetto.dev")


def _without_keep(method: str | None, methods: list[Any]) -> dict[str, None]:
    """Take what belongs to a method away from the unreduced curve that is drawn beside others."""
    alone = len(methods) == 1 or method not in (None, "none")
    return {} if alone else {"keep": None, "layer": None}


def _scenario(cost: Estimate) -> str:
    """Say in a line which request, device and plan a figure shows."""
    given = cost.inputs
    device = given["hardware"] if cost.source is None else cost.source.hardware.name
    parts = [
        f"{given['model']} {given['precision']} on {device}",
        f"{show_visual_tokens(given)}, {given['text_tokens']} text tokens",
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


def _save(figure: Figure, out: Path, *, json: bool) -> None:
    from costmodel.plots import save_figure

    path = save_figure(figure, out)
    if json:
        print_json({"out": str(path)})
    else:
        console().print(f"wrote {path}")
