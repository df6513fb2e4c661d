"""`vlm-roofline estimate`: one scenario, priced stage by stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_roofline.cli.console import console, print_json, warn
from vlm_roofline.cli.options import (
    Json,
    request_options,
    scale_bytes,
    scale_flops,
    scale_time,
)
from vlm_roofline.cli.pictures import Pictures, pictured

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costmodel.result import Estimate


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("estimate")(estimate)


@request_options()
def estimate(
    given: dict[str, Any],
    *,
    image: Pictures = None,
    ops: Annotated[bool, typer.Option("--ops", help="Add the per-op table.")] = False,
    json: Json = False,
) -> None:
    """Predict FLOPs, traffic, memory and time of one request."""
    from costmodel.estimates import estimate as run

    cost = run(**given | pictured(image, given))
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
    from rich.table import Table

    given = cost.inputs
    table = Table(title=_title(given), title_justify="left")
    table.add_column("stage")
    for heading in (
        "FLOP", "weights read", "KV moved", "act. moved", "kernels", "time", "low", "high",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    table.add_column("bound")
    rows = [(name, stage) for name, stage in cost.stages.items() if stage.kernels or stage.flops]
    for name, stage in [*rows, ("total", cost.totals)]:
        kv = None
        if stage.kv_read_bytes is not None and stage.kv_write_bytes is not None:
            kv = stage.kv_read_bytes + stage.kv_write_bytes
        moved = None
        if stage.activation_read_bytes is not None and stage.activation_write_bytes is not None:
            moved = stage.activation_read_bytes + stage.activation_write_bytes
        table.add_row(
            name,
            scale_flops(stage.flops),
            scale_bytes(stage.weight_bytes),
            scale_bytes(kv),
            scale_bytes(moved),
            "-" if stage.kernels is None else f"{stage.kernels:,}",
            scale_time(stage.time_s),
            scale_time(stage.time_low_s),
            scale_time(stage.time_high_s),
            stage.bound or "-",
            style="bold" if name == "total" else None,
        )
    out = console()
    out.print(table)
    own = given["convention"] == "torch"
    if own or cost.totals.time_s is not None:
        _print_time_and_memory(cost)
    if not own:
        out.print(f"convention {given['convention']}; what it does not define is -", style="dim")
        for name, text in cost.assumptions.items():
            out.print(f"{name.replace('_', ' ')}: {text}", style="dim", markup=False)
    if ops:
        out.print(_ops_table(cost))


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
    out.print(f"TTFT {scale_time(cost.totals.ttft_s)}; TPOT {scale_time(cost.totals.tpot_s)}")
    memory = cost.memory
    out.print(
        f"memory: peak {scale_bytes(memory.peak_memory_bytes)} = weights "
        f"{scale_bytes(memory.weight_bytes)} + KV cache {scale_bytes(memory.kv_cache_bytes)} + "
        f"activations {scale_bytes(memory.peak_activation_bytes)}; device has "
        f"{scale_bytes(memory.capacity_bytes)}; activations written in prefill "
        f"{scale_bytes(memory.activation_bytes_written)}"
    )
    if cost.inputs["convention"] == "torch":
        out.print(f"time: {cost.assumptions['time']}", style="dim")


def _ops_table(cost: Estimate) -> object:
    """Return the op table; FLOP are those the kernels run, or what a convention calls so."""
    from rich.table import Table

    table = Table(title="ops", title_justify="left")
    for heading in ("stage", "op", "class", "dtype"):
        table.add_column(heading)
    for heading in ("count", "FLOP", "bytes", "FLOP/B", "time", "SOL %"):
        table.add_column(heading, justify="right")
    table.add_column("bound")
    table.add_column("from")
    for row in cost.ops:
        intensity = row.intensity_flop_per_byte
        table.add_row(
            row.stage,
            row.name.replace("[", r"\["),
            row.op_class or "-",
            row.dtype or "-",
            f"{row.count:,}",
            scale_flops(row.flops if row.executed_flops is None else row.executed_flops),
            scale_bytes(row.hbm_bytes),
            "-" if intensity is None else f"{intensity:.1f}",
            scale_time(row.time_s),
            "-" if row.sol_percent is None else f"{row.sol_percent:.0f}",
            row.bound or "-",
            row.provenance or "-",
        )
    return table
