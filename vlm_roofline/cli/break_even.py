"""`vlm-roofline break-even`: where pruning visual tokens stops paying, and what fits a budget."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vlm_roofline.cli.console import console, print_json, warn
from vlm_roofline.cli.options import Budget, Json, in_unit, refuse_margin, request_options
from vlm_roofline.cli.units import show_bytes, show_time


@request_options("convention", "visual_tokens", "output_tokens")
def break_even(
    given: dict[str, Any],
    *,
    context: typer.Context,
    most: Annotated[int | None, typer.Option(help="Largest visual-token count looked at.")] = None,
    latency_s: Annotated[
        float | None, in_unit("--latency-ms", "Budget for the first token.")
    ] = None,
    memory_bytes: Budget = None,
    json: Json = False,
) -> None:
    """Say where fewer visual tokens stop helping, and how many fit a latency or memory budget."""
    from costmodel.questions.break_evens import break_even as answer
    from costmodel.questions.break_evens import largest_batch
    from hardware_specs import get_hardware

    refuse_margin(context)
    result = answer(**given, most=most, latency_s=latency_s, memory_bytes=memory_bytes)
    margin = int(given["memory_margin_bytes"])
    capacity = (
        get_hardware(given["hardware"]).usable_memory_bytes
        if memory_bytes is None
        else memory_bytes
    )
    batch = None
    if capacity is not None:
        fixed = {name: value for name, value in given.items() if name != "batch_size"}
        batch = largest_batch(**fixed, memory_bytes=memory_bytes)
    if json:
        document = {"schema_version": 1, **result.to_dict(), "largest_batch": batch}
        print_json(document | {"memory_margin_bytes": margin if memory_bytes is None else None})
        return
    warn(*result.warnings)
    out = console()
    out.print(
        f"up to {result.knee_tokens} visual tokens latency is flat: dropping them all saves under 10 % "
        "of the language model's time"
    )
    out.print(f"floor with one visual token: {show_time(result.floor_s)} to the first token")
    looked_at = int(result.visual_tokens[-1])
    out.print(f"one more visual token at {looked_at}: {show_time(float(result.marginal_s[-1]))}")
    if latency_s is not None:
        out.print(f"within {latency_s * 1e3:g} ms: {_most(result.most_within_latency, looked_at)}")
    where = "the memory" if capacity is None else show_bytes(capacity)
    if memory_bytes is None and capacity is not None:
        where += f", less {show_bytes(margin)} for context and driver"
    largest = "unknown" if batch is None else f"{batch:,}" if batch else "none"
    out.print(f"within {where}: {_most(result.most_within_memory, looked_at)}")
    out.print(f"largest batch there with the model's own visual tokens: {largest}")
    out.print(f"{given['execution']} kernels; {result.source.sentence()}", style="dim")


def _most(count: int | None, looked_at: int) -> str:
    if count is None:
        return "unknown (the device states no capacity)"
    if count < 0:
        return "not even one visual token"
    return (
        f"all {count:,} visual tokens" if count == looked_at else f"up to {count:,} visual tokens"
    )
