"""`vlm-roofline campaign`: one device measured in steps that may be killed and continued."""

from __future__ import annotations

import time
from math import inf
from typing import Annotated

import typer

from hardware_specs.errors import InvalidInputError
from vlm_roofline.cli.console import console, print_json, remark
from vlm_roofline.cli.options import Device, Json, NamedModel, Scale, WorkFolder


def campaign(
    step: Annotated[
        str,
        typer.Argument(help="smoke (do all paths run), core (what predictions need) or more."),
    ],
    out: WorkFolder,
    device: Device = "cuda",
    model: NamedModel = "llava-1.5-7b",
    scale: Scale = None,
    dtype: Annotated[
        str | None, typer.Option(help="Of the weights; fp32 on a CPU, else bf16.")
    ] = None,
    budget_s: Annotated[
        float | None,
        typer.Option("--budget", help="Seconds for the step; 240 for smoke, else 480."),
    ] = None,
    started: Annotated[
        float | None,
        typer.Option(help="When the budget began, in seconds since 1970; now when absent."),
    ] = None,
    json: Json = False,
) -> None:
    """Measure ops, models, methods and energy in order of worth, within a budget of seconds."""
    from profiling import CampaignPlan, run_device_campaign
    from profiling.subject.models import named

    begun_s = time.time() if started is None else started
    spent_s = time.time() - begun_s
    if not 0 <= spent_s < inf:
        raise InvalidInputError(f"--started lies in the past, in seconds since 1970, not {started}")
    plan = CampaignPlan(
        step, device, named(model, scale), dtype or ("fp32" if device == "cpu" else "bf16"),
        budget_s=budget_s,
    )  # fmt: skip
    checks = run_device_campaign(
        plan, out, spent_s=spent_s,
        tell=lambda text: remark(f"[{time.time() - begun_s:6.1f} s] {text}"),
    )  # fmt: skip
    failed = [item for item in checks if not item["ok"]]
    if json:
        print_json({"schema_version": 1, "out": str(out), "step": step, "checks": checks})
    else:
        for item in failed:
            console().print(f"not as it should be: {item['check']}: {item['key']}: {item['found']}")
        console().print(
            f"{len(checks) - len(failed)} of {len(checks)} checks hold; results in {out}"
        )
    if failed:
        raise typer.Exit(1)
