"""`vlm-roofline count`: FLOPs of one run by three counters, side by side."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from vlm_roofline.cli.console import console, print_json
from vlm_roofline.cli.options import (
    ImageSizes,
    Json,
    ModelArgument,
    Scale,
    TextTokens,
    parse_image_size,
)

if TYPE_CHECKING:
    from profiling.counting.three_counters import FlopReport


def count(
    model: ModelArgument,
    visual_tokens: Annotated[
        int | None, typer.Option(help="Visual tokens per sequence; the model's own when absent.")
    ] = None,
    images: Annotated[
        int | None, typer.Option(help="Images per sequence; one when absent.")
    ] = None,
    image_size: ImageSizes = None,
    frames: Annotated[
        int | None, typer.Option(help="Frames of a clip, in place of images.")
    ] = None,
    text_tokens: TextTokens = 40,
    batch_size: Annotated[int, typer.Option(help="Sequences.")] = 1,
    scale: Scale = None,
    fvcore: Annotated[bool, typer.Option(help="Ask fvcore as well.")] = True,
    json: Json = False,
) -> None:
    """Count FLOPs by the cost model, torch's counter and fvcore, and explain the differences."""
    from profiling.counting.three_counters import count_model

    report = count_model(
        model,
        visual_tokens=visual_tokens,
        images=images,
        image_size=parse_image_size(image_size),
        frames=frames,
        text_tokens=text_tokens,
        batch_size=batch_size,
        scale=scale,
        fvcore=fvcore,
    )
    if json:
        print_json({"schema_version": 1, **report.to_dict()})
        return
    _print(report)


def _print(report: FlopReport) -> None:
    from vlm_roofline.cli.tables import Column, columns, table

    asked = any(row.fvcore_flops is not None for row in report.rows)
    totals = {
        "stage": "to first token",
        "op": "products",
        "note": "",
        **{f"{name}_flops": report.total(name) for name in ("cost_model", "torch", "fvcore")},
    }
    view = table(
        [*(asdict(row) for row in report.rows), totals],
        [
            *columns(stage="stage", op="op"),
            *columns("1", cost_model="cost_model_flops", torch="torch_flops"),
            *([Column("fvcore x 2", "fvcore_flops", "1")] if asked else []),
            *([Column("why they differ", "note")] if any(row.note for row in report.rows) else []),
        ],
        title=f"FLOP of {report.model}: {report.visual_tokens} visual + {report.text_tokens} text "
        f"tokens, batch {report.batch_size}; decode is one step",
        style=lambda row: "bold" if row is totals else None,
    )
    console().print(view)
    if report.fvcore_missing:
        console().print(f"fvcore: {report.fvcore_missing}")
    verdict = "agree to the unit" if report.agrees else "DIFFER: see the rows above"
    console().print(f"cost model and torch {verdict}")
