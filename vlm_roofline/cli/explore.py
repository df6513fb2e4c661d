"""`vlm-roofline explore`: models and devices to look at in a browser, as one file."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer

from costmodel.request import ARGUMENTS
from vlm_roofline.cli.completion import completes
from vlm_roofline.cli.console import console, print_json, progress
from vlm_roofline.cli.options import (
    HTML,
    SEVERAL_DEVICES,
    Json,
    hardware_option,
    parsed,
    request_options,
    split,
    written,
    written_to,
)

#: What is shown where nothing is named: a projector with fixed tokens and a tower at native resolution.
MODELS = ("llava-1.5-7b", "qwen2.5-vl-7b")
DEVICES = ("nvidia-a100-sxm4-80gb", "nvidia-h100-sxm5-80gb", "nvidia-l40s", "nvidia-rtx-4090")
_LEFT_OUT = (
    "convention", "tokens_per_layer", "visual_tokens", "cached_tokens", "layer", "memory_margin_bytes",
    "min_pixels", "max_pixels", "max_tiles",
)  # fmt: skip


def _several(name: str) -> Any:
    text = f"{ARGUMENTS[name].help} Several: comma-separated."
    return typer.Option(help=text, autocompletion=completes(name))


@request_options(*_LEFT_OUT)
def explore(
    given: dict[str, Any],
    *,
    model: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help="Models: names, config.json files or folders, hub ids.",
            autocompletion=completes("model"),
        ),
    ] = None,
    hardware: Annotated[str | None, hardware_option(SEVERAL_DEVICES)] = None,
    out: Annotated[Path, written_to("The HTML file.", *HTML)] = Path("explorer.html"),
    precision: Annotated[str | None, _several("precision")] = None,
    method: Annotated[str | None, _several("method")] = None,
    keep: Annotated[str | None, _several("keep")] = None,
    batch_size: Annotated[str | None, _several("batch_size")] = None,
    text_tokens: Annotated[str | None, _several("text_tokens")] = None,
    output_tokens: Annotated[str | None, _several("output_tokens")] = None,
    image_size: Annotated[str | None, _several("image_size")] = None,
    json: Json = False,
) -> None:
    """Write a page to look at costs in a browser: one file, no server, no network."""
    from hardware_specs.files.writing import write_file
    from vlm_roofline.explorer.grid import Axes, price
    from vlm_roofline.explorer.page import document

    typed = {
        "precision": precision, "method": method, "keep": keep, "image_size": image_size,
        "batch_size": batch_size, "text_tokens": text_tokens, "output_tokens": output_tokens,
    }  # fmt: skip
    axes: dict[str, Any] = {
        name: parsed(name, text, several=True) for name, text in typed.items() if text is not None
    }
    chosen = Axes(**axes)
    pairs = list(product(model or MODELS, split(hardware) or DEVICES))
    grids = [price(*pair, chosen, given) for pair in progress(pairs, "pricing")]
    content = document(grids, written(given)).encode()
    write_file(out, content)
    points = sum(len(grid["points"]["refused"]) for grid in grids)
    if json:
        found = [{"model": grid["model"], "hardware": grid["hardware"]} for grid in grids]
        print_json(
            {
                "schema_version": 1,
                "out": str(out),
                "bytes": len(content),
                "points": points,
                "grids": found,
            }
        )
        return
    console().print(
        f"{points:,} configurations, {len(content) / 1e6:.2f} MB: {out}; open it in a browser"
    )
