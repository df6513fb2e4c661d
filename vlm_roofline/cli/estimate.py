"""`vlm-roofline estimate`: one scenario, priced stage by stage."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hardware_specs.errors import InvalidInputError
from vlm_roofline.cli.console import console, print_json, warn
from vlm_roofline.cli.options import Json, request_options
from vlm_roofline.cli.units import show_bytes, show_scaled, show_time

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType

    from costmodel.result import Estimate, OpRow


@request_options()
def estimate(
    given: dict[str, Any],
    *,
    ops: Annotated[bool, typer.Option("--ops", help="Add the per-op table.")] = False,
    energy: Annotated[
        bool, typer.Option("--energy", help="Add energy and price of a thousand requests.")
    ] = False,
    price_per_hour: Annotated[
        float | None, typer.Option(help="Of the device, in your currency; implies --energy.")
    ] = None,
    idle_w: Annotated[float | None, typer.Option(help="Measured idle power, watts.")] = None,
    memory_w: Annotated[
        float | None, typer.Option(help="Measured power of memory-bound work, watts.")
    ] = None,
    compute_w: Annotated[
        float | None, typer.Option(help="Measured power of compute-bound work, watts.")
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a table for a model card.")
    ] = False,
    json: Json = False,
) -> None:
    """Predict FLOPs, traffic, memory and time of one request."""
    from costmodel.estimates import estimate as run

    cost = run(**given)
    own = given["convention"] == "torch"
    thousand = None
    if energy or any(each is not None for each in (price_per_hour, idle_w, memory_w, compute_w)):
        from costmodel.energy import PowerModel
        from costmodel.questions.thousand import per_thousand

        thousand = per_thousand(cost, PowerModel(idle_w, memory_w, compute_w), price_per_hour)
    if markdown and (json or ops or thousand is not None):
        raise InvalidInputError(
            "--markdown prints one table; leave out --json, --ops, --energy, powers and price"
        )
    if json:
        document = cost.to_dict()
        if ops:
            document["ops"] = [row.to_dict() for row in cost.ops]
        if thousand is not None:
            document["per_thousand_requests"] = thousand
        print_json(document)
        return
    warn(*cost.warnings)
    if markdown:
        from vlm_roofline.cli.model_card import model_card

        typer.echo(model_card(cost, given))
        return
    _print(cost, ops)
    if thousand is not None:
        console().print(per_thousand_text(thousand))
    if own and given["method"] not in (None, "none"):
        console().print(_saved(given))


def per_thousand_text(found: Mapping[str, Any]) -> str:
    """Say in a line what a thousand requests take.

    >>> per_thousand_text({"requests": 1000, "device_s": 72.0, "energy_j": None, "energy_low_j": None,
    ...     "energy_high_j": 3.6e6, "price": 0.25, "basis": "limit x time"})
    'per 1,000 requests: 72 s of the device, at most 1 kWh (limit x time), price 0.25'
    """
    parts = [f"{found['device_s']:.4g} s of the device"]
    if found["energy_j"] is not None:
        parts.append(f"{show_scaled(found['energy_j'], 3.6e6, 'kWh')} ({found['basis']})")
    elif found["energy_high_j"] is not None:
        high = show_scaled(found["energy_high_j"], 3.6e6, "kWh")
        parts.append(f"at most {high} ({found['basis']})")
    if found["price"] is not None:
        parts.append(f"price {found['price']:.4g}")
    return f"per {found['requests']:,} requests: {', '.join(parts)}"


def _print(cost: Estimate, ops: bool) -> None:
    from vlm_roofline.cli.tables import Column, columns, table

    given = cost.inputs
    names = {id(stage): name for name, stage in cost.stages.items()}
    did = [each for each in cost.stages.values() if each.time_s or each.kernels or each.flops]
    view = table(
        [*did, cost.totals],
        [
            Column("stage", lambda stage: names.get(id(stage), "total")),
            Column("FLOP", "flops", "FLOP"),
            Column("weights read", "weight_bytes", "B", 1),
            Column("KV moved", partial(_moved, "kv"), "B", 1),
            Column("act. moved", partial(_moved, "activation"), "B", 1),
            Column("kernels", "kernels", "1", 1),
            *columns(
                "s", time="time_s", low="time_low_s", high="time_high_s", at_best="ideal_time_s"
            ),
            Column("bound", lambda stage: stage.bound or "-"),
        ],
        title=_title(given),
        style=lambda stage: "bold" if stage is cost.totals else None,
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
        from costmodel.precision.numerics import label_note

        out.print(_ops_table(cost))
        for dtype in dict.fromkeys(row.dtype or "" for row in cost.ops):
            if note := label_note(dtype):
                out.print(note, style="dim")


def _saved(given: Mapping[str, Any]) -> str:
    """Say in one line what the method saves against the same request without it."""
    from costmodel.questions.comparisons import compare, ratio_text

    shared = {
        name: value
        for name, value in given.items()
        if name not in ("convention", "tokens_per_layer", "method")
    }
    *_, row = compare(methods=given["method"], **shared).rows
    names = {"ttft": "TTFT", "tpot": "TPOT", "total": "total", "peak_memory": "memory"}
    parts = [
        f"{name} {ratio_text(ratio)}"
        for key, name in names.items()
        if (ratio := row.ratios[key]) is not None
    ]
    text = f"against no method: {', '.join(parts)}; at most {row.at_most:.2f} times faster"
    return text if row.why is None else f"{text}; {row.why}"


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
    return title if given["method"] in (None, "none") else f"{title}, {_method_title(given)}"


def _method_title(given: Mapping[str, Any]) -> str:
    """Name the method, or the two of a stack, with variant, options and what it keeps."""
    from costmodel.methods import get_method
    from costmodel.methods.info import VISUAL

    variant = given.get("method_variant", "program")
    method = get_method(given["method"], variant=variant, **given.get("method_options", {}))
    asked = [(each, each.given_keep, each.given_layer) for each in method.info.stages]
    parts = []
    for each, keep, layer in asked or [(method, given["keep"], given["layer"])]:
        info = each.info
        # Where the data decide, nothing is asked for.
        plain = info.default_keep is None or info.expected_keep is not None
        default = "" if plain else f" of {info.default_keep}"
        kept = f" at its default{default}" if keep is None else f" keep {keep}"
        if default if keep is None else info.keep_meaning != VISUAL:
            kept += f" ({info.keep_meaning})"
        if keep is None and each.said_by_options:
            kept = ""
        parts.append(f"{each.label}{kept}" + ("" if layer is None else f" from layer {layer}"))
    return ", then ".join(parts)


def _print_time_and_memory(cost: Estimate) -> None:
    from costmodel.schedule import schedule_text

    out = console()
    out.print(f"TTFT {show_time(cost.totals.ttft_s)}; TPOT {show_time(cost.totals.tpot_s)}")
    chosen = (cost.inputs.get("method"), cost.inputs.get("tokens_per_layer"))
    if cost.visual_tokens_by_layer and any(one not in (None, "none") for one in chosen):
        out.print(f"visual tokens: {schedule_text(cost.visual_tokens_by_layer)}")
    memory = cost.memory
    margin = ""
    if memory.capacity_bytes is not None and cost.inputs["convention"] == "torch":
        taken = show_bytes(cost.assumptions["memory_margin_bytes"])
        margin = f", {taken} of it for context and driver"
    out.print(
        f"memory: peak {show_bytes(memory.peak_memory_bytes)} = weights "
        f"{show_bytes(memory.weight_bytes)} + KV cache {show_bytes(memory.kv_cache_bytes)} + "
        f"activations {show_bytes(memory.peak_activation_bytes)}; device has "
        f"{show_bytes(memory.capacity_bytes)}{margin}"
    )
    if (sent := cost.communication) is not None:
        parts = [f"{show_bytes(size)} {kind}" for kind, size in sent["bytes"].items()]
        out.print(
            f"{sent['devices']} devices ({sent['node']}), each exchanging {' + '.join(parts)}: "
            f"{show_time(sent['time_s'])}, not overlapped"
        )
    out.print(f"activations written in prefill: {show_bytes(memory.activation_bytes_written)}")
    if cost.inputs["convention"] == "torch":
        out.print(cost.calibration.sentence(), style="dim")
        host = cost.inputs["host_s"]
        if host is not None:
            out.print(f"host: {show_time(host)} per kernel (--host-us)", style="dim")


def _ops_table(cost: Estimate) -> RenderableType:
    """Return the op table; FLOP are those the kernels run, or what a convention calls so."""
    from vlm_roofline.cli.tables import Column, table

    def flops(row: OpRow) -> Any:
        return row.flops if row.executed_flops is None else row.executed_flops

    shown = [
        Column("op", "name"),
        Column("class", "op_class", priority=3),
        Column("dtype", "dtype", priority=2),
        Column("count", "count", "1"),
        Column("FLOP", flops, "FLOP"),
        Column("bytes", "hbm_bytes", "B"),
        Column("FLOP/B", lambda row: _fixed(row.intensity_flop_per_byte, 1), "1", priority=2),
        Column("time", "time_s", "s"),
        Column("SOL %", lambda row: _fixed(row.sol_percent, 0), "1"),
        Column("bound", "bound"),
        Column("from", "provenance", priority=4),
    ]
    return table(cost.ops, shown, title="ops", section=lambda row: row.stage)


def _fixed(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}f}"


def _moved(kind: str, stage: Any) -> int | None:
    """Return the bytes of a kind that a stage reads and writes, None where a convention counts none."""
    read = getattr(stage, f"{kind}_read_bytes")
    return None if read is None else read + getattr(stage, f"{kind}_write_bytes")
