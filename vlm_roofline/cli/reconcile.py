"""`vlm-roofline reconcile`: measured runs beside their estimates, the gap in parts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hardware_specs.errors import InvalidInputError
from vlm_roofline.cli.console import console, print_json
from vlm_roofline.cli.options import Json  # noqa: TC001 - typer reads the annotations when it runs

if TYPE_CHECKING:
    from profiling.reconciling import Reconciliation

#: Flags shown before the rest is only counted.
MOST_FLAGS = 12


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("reconcile")(reconcile)


def reconcile(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Folders or files of measured records.")
    ],
    calibration: Annotated[
        str | None, typer.Option(help="The device's calibration: a file, or a shipped one's name.")
    ] = None,
    hardware: Annotated[
        str | None,
        typer.Option(
            "--hardware", "-d", help="Device id or YAML file; found by its name if absent."
        ),
    ] = None,
    stage: Annotated[
        str, typer.Option(help="Stage of the table of runs: total, prefill, vision, decode, ...")
    ] = "total",
    plots: Annotated[
        Path | None, typer.Option(help="Also write the figures to this folder.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Also write every row to FILE.csv.")] = None,
    json: Json = False,
) -> None:
    """Join every measured run and stage with its estimate and split the gap into named parts."""
    from costmodel.quantities import STAGES
    from profiling.reconciling import reconcile as join
    from profiling.records.measurement import TOTAL

    if stage not in (*STAGES, TOTAL):
        raise InvalidInputError(
            f"--stage {stage!r} is unknown; there is: {', '.join((*STAGES, TOTAL))}"
        )
    result = join(folders, calibration, hardware=hardware)
    if plots is not None:
        from profiling.report import reconciliation_figures, save_figures

        paths = save_figures(reconciliation_figures(result), plots)
        if not json:
            console().print(f"{len(paths)} figures in {plots}", highlight=False)
    if csv is not None:
        from hardware_specs.files.writing import write_file

        write_file(csv, result.to_frame().to_csv(index=False))
    if json:
        print_json(result.to_dict())
        return
    print_reconciliation(result, stage)


def print_reconciliation(result: Reconciliation, stage: str = "total") -> None:
    """Print a reconciliation for people: runs with their parts, errors, curves, flags.

    Args:
        result: the reconciliation.
        stage: whose runs to list.
    """
    out = console()
    rows = result.of_stage(stage)
    if rows:
        out.print(_runs(result, stage))
    out.print(_errors(result))
    series = [row for row in result.summary["series"] if row["stage"] == "prefill"]
    for row in series:
        left_out = row["leave_one_count_out"]
        out.print(
            f"{row['method']}, batch {row['batch_size']}, {row['mode']}, prefill over "
            f"{row['counts']} token counts: rank correlation {row['rank_correlation']}, shape error "
            f"{left_out['mape']:.1%} (worst {left_out['max']:.1%} at {left_out['worst_count']}), "
            f"knee measured {row['measured_knee'] or '-'}, predicted {row['predicted_knee'] or '-'}",
            highlight=False,
        )
    _print_counts(result)
    flags = [
        f"{row['method']} {row['visual_tokens']} {row['mode']} {row['stage']}: {flag}"
        for row in result.rows
        for flag in row["flags"]
    ]
    for flag in list(dict.fromkeys(flags))[:MOST_FLAGS]:
        out.print(f"! {flag}", highlight=False, markup=False)
    if len(set(flags)) > MOST_FLAGS:
        out.print(f"! {len(set(flags)) - MOST_FLAGS} more flags are in --json", highlight=False)
    for row in result.skipped:
        out.print(
            f"- {row['method']} {row['visual_tokens']} {row['mode']}: {row['status']}, {row['reason']}",
            highlight=False, markup=False,
        )  # fmt: skip
    for note in result.notes:
        out.print(f"note: {note}", highlight=False, markup=False)


def _print_counts(result: Reconciliation) -> None:
    flops, memory = result.summary["flops"], result.summary["memory"]
    parts = []
    if flops["rows"]:
        parts.append(f"FLOPs equal to the unit on {flops['equal']} of {flops['rows']} rows")
    if memory["rows"]:
        parts.append(f"peak memory off by {memory['mape']:.2%} (worst {memory['max']:.2%})")
    energy = result.summary["energy"]
    if energy.get("mape") is not None:
        parts.append(f"energy off by {energy['mape']:.0%} over {energy['rows']} windows")
    if parts:
        console().print("; ".join(parts), highlight=False)


def _runs(result: Reconciliation, stage: str) -> object:
    from rich.table import Table

    from profiling.reconciling import LABELS, PARTS

    rows = result.of_stage(stage)
    shown = [name for name in PARTS if any(abs(row[name]) >= 5e-7 for row in rows)]
    title = (
        f"{stage} on {result.hardware.name}, calibration {result.calibration_name or 'none'}; "
        "milliseconds"
    )
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in ("method", "mode"):
        table.add_column(name)
    for name in ("batch", "tokens", "measured", "spread", "predicted", "error", "ideal"):
        table.add_column(name, justify="right")
    for name in shown:
        table.add_column(LABELS[name], justify="right", overflow="fold", min_width=7)
    table.add_column("bound")
    for row in rows:
        noise = row["noise_s"]
        table.add_row(
            row["method"],
            row["mode"],
            str(row["batch_size"]),
            str(row["visual_tokens"]),
            f"{row['measured_s'] * 1e3:.2f}",
            "?" if noise is None else f"{noise * 1e3:.2f}",
            f"{row['predicted_s'] * 1e3:.2f}",
            f"{row['relative_error']:+.1%}",
            f"{row['ideal_s'] * 1e3:.2f}",
            *(f"{row[name] * 1e3:+.2f}" for name in shown),
            str(row["regime"]),
        )
    return table


def _errors(result: Reconciliation) -> object:
    from rich.table import Table

    table = Table(
        title="errors", title_justify="left", box=None, pad_edge=False, header_style="bold"
    )
    table.add_column("time of")
    heads = ("rows", "MAPE", "median", "p90", "worst", "bias", "in interval", "in noise")
    for name in heads:
        table.add_column(name, justify="right")
    summary = result.summary
    groups = list(summary["time"].items())
    groups += [(f"total, {name}-bound", found) for name, found in summary["by_regime"].items()]
    for name, found in groups:
        share = [
            "-" if found[key] is None else f"{found[key]:.0%}"
            for key in ("coverage", "within_noise")
        ]
        table.add_row(
            name,
            str(found["count"]),
            *(f"{found[key]:.1%}" for key in ("mape", "median", "p90", "max")),
            f"{found['bias']:.3f}",
            *share,
        )
    return table
