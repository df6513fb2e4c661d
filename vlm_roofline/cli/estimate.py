"""`vlm-roofline estimate`: one scenario, priced stage by stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_roofline.cli.console import console, print_json, warn
from vlm_roofline.cli.options import Hardware, Json, parse_image_size, parse_keep
from vlm_roofline.cli.units import show_bytes, show_time

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from costmodel.result import Estimate


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("estimate")(estimate)


def estimate(
    model: Annotated[
        str, typer.Argument(help="A model's name, a config.json or its folder, or a hub id.")
    ],
    hardware: Hardware,
    visual_tokens: Annotated[
        int | None, typer.Option(help="Visual tokens per sample; the model's own when absent.")
    ] = None,
    text_tokens: Annotated[
        int | None, typer.Option(help="Text tokens per sample; 40, or a convention's own.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Samples.")] = 1,
    output_tokens: Annotated[int, typer.Option(help="Decode steps after the prefill.")] = 0,
    precision: Annotated[
        str, typer.Option(help="fp16, bf16, fp8, int8 (w8a8), int4 (w4a16), w4a16kv8, ...")
    ] = "fp16",
    method: Annotated[str | None, typer.Option(help="A token-reduction method.")] = None,
    keep: Annotated[str | None, typer.Option(help="What it keeps: 64, or a ratio 0.1.")] = None,
    layer: Annotated[int | None, typer.Option(help="Layer K of methods inside the LLM.")] = None,
    execution: Annotated[str, typer.Option(help="fused, hf-eager or cuda-graph.")] = "fused",
    calibration: Annotated[
        str | None, typer.Option(help="A calibration file, or a shipped one's name.")
    ] = None,
    convention: Annotated[str, typer.Option(help="torch, or another tool's counting.")] = "torch",
    attention: Annotated[
        str | None, typer.Option(help="flash, or eager (scores written out).")
    ] = None,
    logits: Annotated[str, typer.Option(help="Rows of logits: last or all.")] = "last",
    image_size: Annotated[str | None, typer.Option(help="HEIGHTxWIDTH in pixels.")] = None,
    frames: Annotated[int | None, typer.Option(help="Frames of a video.")] = None,
    vision_layers: Annotated[str, typer.Option(help="executed or useful.")] = "executed",
    ops: Annotated[bool, typer.Option("--ops", help="Add the per-op table.")] = False,
    json: Json = False,
) -> None:
    """Predict FLOPs, traffic, memory and time of one request."""
    from costmodel.estimates import estimate as run

    cost = run(
        model,
        hardware,
        visual_tokens=visual_tokens,
        text_tokens=text_tokens,
        batch_size=batch_size,
        output_tokens=output_tokens,
        precision=precision,
        method=method,
        keep=parse_keep(keep),
        layer=layer,
        execution=execution,
        calibration=calibration,
        convention=convention,
        attention=attention,
        logits=logits,
        image_size=parse_image_size(image_size),
        frames=frames,
        vision_layers=vision_layers,
    )
    if json:
        document = cost.to_dict()
        if ops:
            document["ops"] = [row.to_dict() for row in cost.ops]
        print_json(document)
        return
    for line in cost.warnings:
        warn(line)
    _print(cost, ops)


def _print(cost: Estimate, ops: bool) -> None:
    from vlm_roofline.cli.tables import Column, table

    given = cost.inputs
    rows = [(name, stage) for name, stage in cost.stages.items() if stage.kernels or stage.flops]
    view = table(
        [*rows, ("total", cost.totals)],
        [
            Column("stage", lambda row: row[0]),
            Column("FLOP", lambda row: row[1].flops, "FLOP"),
            Column("weights read", lambda row: row[1].weight_bytes, "B", 1),
            Column(
                "KV moved", lambda row: _sum(row[1].kv_read_bytes, row[1].kv_write_bytes), "B", 1
            ),
            Column("act. moved", lambda row: _activations(row[1]), "B", 1),
            Column("kernels", lambda row: row[1].kernels, "1"),
            Column("time", lambda row: row[1].time_s, "s"),
            Column("low", lambda row: row[1].time_low_s, "s"),
            Column("high", lambda row: row[1].time_high_s, "s"),
            Column("bound", lambda row: row[1].bound or "-"),
        ],
        title=_title(given),
        style=lambda row: "bold" if row[0] == "total" else None,
    )
    out = console()
    out.print(view)
    own = given["convention"] == "torch"
    if own or cost.totals.time_s is not None:
        _print_time_and_memory(cost)
    if not own:
        out.print(f"convention {given['convention']}; what it does not define is -", style="dim")
        for name, text in cost.assumptions.items():
            out.print(f"{name.replace('_', ' ')}: {text}", style="dim")
    if ops:
        out.print(_ops_table(cost, own))


def _title(given: Mapping[str, Any]) -> str:
    """Say what was priced, with the method's setting."""
    tokens = f"{given['visual_tokens']} visual"
    # Some conventions fix no text length and count none.
    if given["text_tokens"] is not None:
        tokens += f" + {given['text_tokens']} text"
    title = (
        f"{given['model']} on {given['hardware']}, {given['precision']}: {tokens} tokens, "
        f"batch {given['batch_size']}"
    )
    if given["method"] not in (None, "none"):
        keep = given["keep"]
        title += f", {given['method']} "
        title += "at its default" if keep is None else f"keep {keep}"
        if given["layer"] is not None:
            title += f" from layer {given['layer']}"
    return title


def _print_time_and_memory(cost: Estimate) -> None:
    out = console()
    out.print(f"TTFT {show_time(cost.totals.ttft_s)}; TPOT {show_time(cost.totals.tpot_s)}")
    memory = cost.memory
    out.print(
        f"memory: peak {show_bytes(memory.peak_memory_bytes)} = weights "
        f"{show_bytes(memory.weight_bytes)} + KV cache {show_bytes(memory.kv_cache_bytes)} + "
        f"activations {show_bytes(memory.peak_activation_bytes)}; device has "
        f"{show_bytes(memory.capacity_bytes)}; activations written in prefill "
        f"{show_bytes(memory.activation_bytes_written)}"
    )
    if cost.inputs["convention"] == "torch":
        out.print(f"time: {cost.assumptions['time']}", style="dim")


def _ops_table(cost: Estimate, own: bool) -> Table:
    """Return the ops; another tool's or paper's have no class, and its FLOP are what it calls so."""
    from vlm_roofline.cli.tables import Column, columns, table

    shown = [*columns(stage="stage", op="name")]
    shown += columns(**{"class": "op_class"}, dtype="dtype") if own else []
    shown.append(Column("count", "count", "1"))
    shown.append(Column("FLOP", "executed_flops" if own else "flops", "FLOP"))
    shown.append(Column("bytes", "hbm_bytes", "B"))
    if own:
        shown.append(Column("FLOP/B", lambda row: _fixed(row.intensity_flop_per_byte, 1), "1"))
    shown.append(Column("time", "time_s", "s"))
    if own:
        shown.append(Column("SOL %", lambda row: _fixed(row.sol_percent, 0), "1"))
    shown.append(Column("bound", lambda row: row.bound or "-"))
    shown += [Column("from", "provenance")] if own else []
    return table(cost.ops, shown, title="ops")


def _fixed(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}f}"


def _activations(stage: Any) -> int | None:
    return _sum(stage.activation_read_bytes, stage.activation_write_bytes)


def _sum(one: int | None, two: int | None) -> int | None:
    return None if one is None or two is None else one + two
