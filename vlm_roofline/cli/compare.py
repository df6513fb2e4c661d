"""`vlm-roofline compare`: what methods save on each device, with intervals, and why where they do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hardware_specs.errors import InvalidInputError
from vlm_roofline.cli.completion import completes
from vlm_roofline.cli.console import console, print_json, warn
from vlm_roofline.cli.method_settings import MethodOptions, Variant, with_settings
from vlm_roofline.cli.options import (
    SEVERAL_DEVICES,
    Json,
    hardware_option,
    parse_keep,
    request_options,
    split,
)

if TYPE_CHECKING:
    from costmodel.questions.comparisons import Comparison


@request_options("convention", "tokens_per_layer", "method", "keep")
def compare(
    given: dict[str, Any],
    *,
    hardware: Annotated[str, hardware_option(SEVERAL_DEVICES)],
    method: Annotated[
        str,
        typer.Option(help="Methods such as fastv,divprune.", autocompletion=completes("method")),
    ],
    keep: Annotated[
        str | None, typer.Option(help="What they keep, several comma-separated: 64,50%,0.1.")
    ] = None,
    variant: Variant = None,
    option: MethodOptions = None,
    format_: Annotated[
        str, typer.Option("--format", help="text, csv, markdown or latex (booktabs).")
    ] = "text",
    json: Json = False,
) -> None:
    """Say what methods save against the unreduced run, and why where they do not."""
    from costmodel.questions.comparisons import compare as run

    written = ("text", "csv", "markdown", "latex")
    if format_ not in written:
        raise InvalidInputError(f"--format {format_!r} is unknown; there is: {', '.join(written)}")
    if json and format_ != "text":
        raise InvalidInputError(f"--format {format_} and --json are two formats; leave out one")
    result = run(
        given.pop("model"),
        split(hardware),
        methods=with_settings(split(method), variant=variant, options=option),
        keep=[parse_keep(part) for part in split(keep)] or None,
        **given,
    )
    if json:
        print_json(result.to_dict())
        return
    warn(*result.warnings)
    if format_ == "text":
        _print(result)
    else:
        text = getattr(result, f"to_{format_}")()
        typer.echo(text, nl=not text.endswith("\n"))


def _print(result: Comparison) -> None:
    from costmodel.questions.comparisons import ratio_text, reasons
    from vlm_roofline.cli.tables import Column, table

    def ratio(name: str) -> Any:
        return lambda row: ratio_text(row.ratios[name])

    decodes = any(row.tpot_s is not None for row in result.rows)
    energy = any(row.energy_j is not None for row in result.rows)
    shown = [
        Column("", "named", whole=True),
        Column("visual tokens", lambda row: f"{row.mean_visual_tokens:.5g}", "1"),
        Column("TTFT", "ttft_s", "s", 2 if decodes else 0),
        Column("TTFT ratio", ratio("ttft"), "1", 1 if decodes else 0),
    ]
    if decodes:
        shown += [
            Column("TPOT", "tpot_s", "s", 3),
            Column("TPOT ratio", ratio("tpot"), "1", 2),
            Column("total", "total_s", "s"),
            Column("total ratio", ratio("total"), "1"),
        ]
    shown += [
        Column("memory", "peak_memory_bytes", "B", 2),
        Column("memory ratio", ratio("peak_memory"), "1", 3),
        Column("fits", lambda row: "?" if row.fits is None else row.fits),
    ]
    if energy:
        shown += [
            Column("energy J", "energy_j", "1", 2),
            Column("energy ratio", ratio("energy"), "1", 2),
        ]
    given = result.inputs
    title = (
        f"{result.model}, {given['precision']}, {given['visual_tokens']} visual + "
        f"{given['text_tokens']} text tokens, batch {given['batch_size']}, "
        f"{given['output_tokens']} output tokens, {given['execution']}"
    )
    out = console()
    out.print(table(result.rows, shown, title=title, section=lambda row: row.hardware))
    out.print(
        "ratio: to no method, below 1 saves; in brackets the interval of the ratio", style="dim"
    )
    for row in result.rows:
        if row.method == "none":
            out.print(
                f"{row.hardware}: at most {row.at_most:.2f} times faster whatever you prune: tower, text "
                "and their decode stay"
            )
    for what, why in reasons(result):
        out.print(f"{what}: {why}")
