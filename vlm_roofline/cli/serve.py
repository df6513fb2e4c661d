"""`vlm-roofline serve`: throughput, TTFT, TPOT and price of continuous batching."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vlm_roofline.cli.console import console, print_json, warn
from vlm_roofline.cli.options import Json, in_unit, refuse_margin, request_options
from vlm_roofline.cli.units import show_time


@request_options("convention", "batch_size", output_tokens=128)
def serve(
    given: dict[str, Any],
    *,
    context: typer.Context,
    batch: Annotated[
        int | None, typer.Option(help="Requests that run at once; as many as fit.")
    ] = None,
    rate_per_s: Annotated[
        float | None, typer.Option("--rate", help="Requests per second; as many as can be served.")
    ] = None,
    memory_bytes: Annotated[
        float | None,
        in_unit("--memory-gb", "Memory of a device, 1e9 bytes; its own less the margin."),
    ] = None,
    price_per_hour: Annotated[
        float | None, typer.Option(help="Of one device, in your currency.")
    ] = None,
    step_s: Annotated[
        float, in_unit("--step-ms", "Host milliseconds of a decode step, beside the device's.")
    ] = 0.0,
    json: Json = False,
) -> None:
    """Say what devices serve in steady state under continuous batching."""
    from costmodel.questions.serving import serve as answer

    refuse_margin(context)
    found = answer(
        **given,
        batch=batch,
        rate_per_s=rate_per_s,
        memory_bytes=memory_bytes,
        price_per_hour=price_per_hour,
        step_s=step_s,
    )
    if json:
        print_json(found.to_dict())
        return
    warn(*found.warnings)
    out = console()
    inputs = found.inputs
    out.print(
        f"{inputs['model']} on {found.devices} x {inputs['hardware']}, {inputs['precision']}: "
        f"{inputs['visual_tokens']} visual + {inputs['text_tokens']} text tokens, "
        f"{inputs['output_tokens']} output tokens",
        style="bold",
    )
    out.print(
        f"{found.requests_per_s:.4g} requests/s, {found.tokens_per_s:.4g} output tokens/s with "
        f"{found.batch:g} requests at once (limited by {found.limited_by})"
    )
    out.print(f"TTFT {show_time(found.ttft_s)}; TPOT {show_time(found.tpot_s)}")
    if found.largest_batch is not None:
        out.print(
            f"largest batch that fits: {found.largest_batch:,}, serving "
            f"{found.most_requests_per_s:.4g} requests/s"
        )
    if found.price_per_thousand is not None:
        out.print(f"price of 1,000 requests: {found.price_per_thousand:.4g}")
    out.print("mean lengths, no scheduler: compare plans by ratios", style="dim")
    out.print(found.source.sentence(), style="dim")
