"""`vlm-roofline break-even`: where pruning visual tokens stops paying, and what fits a budget."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vlm_roofline.cli.console import console, print_json
from vlm_roofline.cli.options import Hardware, Json, parse_keep
from vlm_roofline.cli.units import show_bytes, show_time


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("break-even")(break_even)


def break_even(
    model: Annotated[str, typer.Argument(help="A model's name, config.json, folder or hub id.")],
    hardware: Hardware,
    most: Annotated[int | None, typer.Option(help="Largest visual-token count looked at.")] = None,
    latency_ms: Annotated[float | None, typer.Option(help="Budget for the first token.")] = None,
    memory_gb: Annotated[
        float | None, typer.Option(help="Budget for the peak memory, 1e9 bytes.")
    ] = None,
    text_tokens: Annotated[int, typer.Option(help="Text tokens per sample.")] = 40,
    batch_size: Annotated[int, typer.Option(help="Samples.")] = 1,
    precision: Annotated[str, typer.Option(help="As estimate.")] = "fp16",
    method: Annotated[str | None, typer.Option(help="A token-reduction method.")] = None,
    keep: Annotated[str | None, typer.Option(help="What it keeps.")] = None,
    execution: Annotated[str, typer.Option(help="fused, hf-eager or cuda-graph.")] = "fused",
    calibration: Annotated[str | None, typer.Option(help="A calibration file or name.")] = None,
    json: Json = False,
) -> None:
    """Say where fewer visual tokens stop helping, and how many fit a latency or memory budget."""
    from costmodel.questions.break_evens import break_even as answer
    from costmodel.questions.break_evens import largest_batch
    from hardware_specs import get_hardware

    fixed: dict[str, Any] = {
        "text_tokens": text_tokens,
        "precision": precision,
        "method": method,
        "keep": parse_keep(keep),
        "execution": execution,
        "calibration": calibration,
    }
    memory = None if memory_gb is None else memory_gb * 1e9
    result = answer(
        model,
        hardware,
        most=most,
        latency_s=None if latency_ms is None else latency_ms / 1e3,
        memory_bytes=memory,
        batch_size=batch_size,
        **fixed,
    )
    batch = None
    if memory is not None or get_hardware(hardware).usable_memory_bytes is not None:
        batch = largest_batch(model, hardware, memory_bytes=memory, **fixed)
    if json:
        print_json({"schema_version": 1, **result.to_dict(), "largest_batch": batch})
        return
    out = console()
    out.print(
        f"up to {result.knee_tokens} visual tokens latency is flat: dropping them all saves under 10 % "
        "of the language model's time"
    )
    out.print(f"floor with one visual token: {show_time(result.floor_s)} to the first token")
    looked_at = int(result.visual_tokens[-1])
    out.print(f"one more visual token at {looked_at}: {show_time(float(result.marginal_s[-1]))}")
    if latency_ms is not None:
        out.print(f"within {latency_ms:g} ms: {_most(result.most_within_latency, looked_at)}")
    capacity = get_hardware(hardware).usable_memory_bytes if memory is None else memory
    where = "the memory" if capacity is None else show_bytes(capacity)
    largest = "unknown" if batch is None else f"{batch:,}" if batch else "none"
    out.print(f"within {where}: {_most(result.most_within_memory, looked_at)}")
    out.print(f"largest batch there with the model's own visual tokens: {largest}")
    out.print(
        f"time: {execution} kernels, "
        + (
            "the ideal roofline, a lower bound; --calibration gives expected times"
            if calibration is None
            else f"calibration {calibration}"
        ),
        style="dim",
    )


def _most(count: int | None, looked_at: int) -> str:
    if count is None:
        return "unknown (the device states no capacity)"
    if count < 0:
        return "not even one visual token"
    return (
        f"all {count:,} visual tokens" if count == looked_at else f"up to {count:,} visual tokens"
    )
