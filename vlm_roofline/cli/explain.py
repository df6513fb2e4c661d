"""`vlm-roofline explain`: anybody's profiler trace, or two of them, explained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_roofline.cli.console import console, print_json
from vlm_roofline.cli.options import (
    HTML,
    FoundHardware,
    Json,
    TimesOf,
    parse_image_size,
    parse_keep,
    written_to,
)
from vlm_roofline.cli.paths import typed_path

if TYPE_CHECKING:
    from profiling.explaining import Explanation

#: Ops in the table for people.
MOST_OPS = 12


def explain(
    trace: Annotated[
        Path,
        typer.Argument(
            metavar="TRACE", parser=typed_path, help="A torch.profiler trace: .json or .json.gz."
        ),
    ],
    other: Annotated[
        Path | None,
        typer.Argument(metavar="[TRACE2]", parser=typed_path, help="A second one: the run after a method."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Its model, for the estimate beside the trace.")
    ] = None,
    hardware: FoundHardware = None,
    calibration: TimesOf = "auto",
    visual_tokens: Annotated[
        int | None, typer.Option(help="Visual tokens of the model's run, if not its own number.")
    ] = None,
    image_size: Annotated[str | None, typer.Option(help="HEIGHTxWIDTH of its image.")] = None,
    method: Annotated[str | None, typer.Option(help="The method that ran.")] = None,
    keep: Annotated[str | None, typer.Option(help="What it was given: 64, 0.1 or 10%.")] = None,
    calibrate: Annotated[
        Path | None,
        written_to(
            "Also write its ops as a table that `calibrate` reads: .parquet or .csv.",
            ".parquet", ".csv",
        ),
    ] = None,
    out: Annotated[Path | None, written_to("Also write a page: FILE.html.", *HTML)] = None,
    plot: Annotated[
        Path | None, written_to("Also draw its ops on the roofline: FILE.svg, .png or .pdf.")
    ] = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Say where the device's time went: stages, layers, ops against their roof, gaps, the host."""
    from profiling.explaining import explain as explained

    found = explained(
        trace, other, model=model, hardware=hardware, calibration=calibration,
        visual_tokens=visual_tokens, image_size=parse_image_size(image_size), method=method,
        keep=parse_keep(keep),
    )  # fmt: skip
    written = _write(found, calibrate, out, plot)
    if json:
        print_json(found.to_dict())
        return
    _print(found)
    for line in written:
        console().print(line)


def _write(
    found: Explanation, calibrate: Path | None, out: Path | None, plot: Path | None
) -> list[str]:
    lines = []
    if calibrate is not None:
        from profiling.explaining.optable import write_op_frame

        lines.append(f"{write_op_frame(found, calibrate)} ops for `calibrate`: {calibrate}")
    if out is not None or plot is not None:
        from costmodel.plots import save_figure
        from hardware_specs.files.writing import write_file
        from profiling.report.explaining import explanation_html, ops_with_roofs, plot_explanation

        figure = plot_explanation(found) if plot is not None or ops_with_roofs(found) else None
        if plot is not None and figure is not None:
            lines.append(f"roofline: {save_figure(figure, plot)}")
        if out is not None:
            write_file(out, explanation_html(found, figure))
            lines.append(f"page: {out}")
    return lines


def _print(found: Explanation) -> None:
    from vlm_roofline.cli.tables import Column, columns, table

    out, whole = console(), found.kernel_time_s or 1.0
    share = Column("share", lambda row: row[1] / whole, "%")
    title = f"{found.source}: {found.device}" + (
        f", calibration {found.calibration.name}" if found.calibration is not None else ""
    )
    totals = [
        ("attributed", found.attributed_time_s), ("unattributed", found.unattributed_time_s),
        ("copies", found.copies_time_s), ("all device work", found.kernel_time_s),
    ]  # fmt: skip
    named = [Column("", 0), Column("time", 1, "s"), share]
    out.print(table(totals, named, title=title))
    span = found.time.span_s or 1.0
    times = [
        ("busy", found.time.busy_s), ("waiting for the host", found.time.host_idle_s),
        ("other gaps", found.idle_s - found.time.host_idle_s), ("first to last work", found.time.span_s),
    ]  # fmt: skip
    out.print(table(times, [*named[:2], Column("share", lambda row: row[1] / span, "%")]))
    if found.layers:
        layers = [
            *columns(layers="says"),
            *columns("1", sequences="batch", passes="passes"),
            *columns("s", time="time_s"),
        ]
        out.print(table(found.layers, layers))
    if found.stages:
        out.print(table(found.stages.items(), [Column("stage", 0), *named[1:]]))
    classes = [
        Column("class", "op_class", whole=True),
        *columns("1", kernels="kernels"),
        *columns("s", time="time_s", ideal=lambda row: row["ideal_s"] or None,
                 predicted=lambda row: row["predicted_s"] or None),
        Column("predicted / measured", _ratio, "1"),
    ]  # fmt: skip
    out.print(table(found.by_class(), classes))
    if found.families:
        families = [*columns(kernels="kind", implementation="name"), *columns("1", count="kernels"),
                    *columns("s", time="time_s")]  # fmt: skip
        out.print(table(found.families, families))
    if found.unlinked_classes:
        unlinked = [Column("linked to no op, by kernel", 0), *named[1:]]
        out.print(table(found.unlinked_classes.items(), unlinked))
    ops = [
        Column("stage", "stage", priority=2),
        Column("op", lambda row: row.name.removeprefix("aten::")),
        # A size is one word, so that a narrow column breaks between the sizes.
        Column("sizes", lambda row: row.sizes.replace(" x ", "x")),
        Column("calls", "calls", "1", priority=1),
        *columns("s", time="time_s", ideal="ideal_s", predicted="predicted_s"),
    ]
    out.print(table(found.ops[:MOST_OPS], ops, title=f"the longest of {len(found.ops)} ops"))
    if found.against is not None:
        _print_against(found.against)
    if found.comparison is not None:
        _print_comparison(found.comparison)
    for note in found.notes:
        out.print(f"note: {note}")
    out.print(found.sentence)


def _ratio(row: dict[str, Any]) -> str | None:
    return f"{row['predicted_s'] / row['priced_s']:.2f}" if row["priced_s"] else None


def _print_against(against: Any) -> None:
    from vlm_roofline.cli.reconcile import gap_columns
    from vlm_roofline.cli.tables import columns, table

    view = [
        *columns(stage="stage"),
        *columns("s", measured="measured_s", predicted="predicted_s", ideal="ideal_s"),
        *gap_columns(against.rows, digits=3),
    ]
    title = (
        f"{against.model}, {against.visual_tokens} visual and {against.text_tokens} text tokens, batch "
        f"{against.batch_size}: one pass beside the estimate, parts in ms"
    )
    console().print(table(against.rows, view, title=title))
    for flag in against.flags:
        console().print(f"! {flag}")


def _print_comparison(both: Any) -> None:
    from profiling.explaining.comparison import PARTS
    from vlm_roofline.cli.tables import Column, columns, table

    view = [
        Column("part", lambda part: PARTS[part.name]),
        *columns("s", before="before_s", after="after_s", expected="expected_s"),
        Column("lost, ms", lambda part: f"{part.lost_s * 1e3:+.3f}", "1"),
    ]
    rows = sorted(both.parts, key=lambda part: -part.lost_s)
    console().print(table(rows, view, title=f"before and after ({both.source}), one pass"))
