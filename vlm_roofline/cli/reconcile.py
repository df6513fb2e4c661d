"""`vlm-roofline reconcile`: measured runs beside their estimates, the gap in parts."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hardware_specs.errors import InvalidInputError
from vlm_roofline.cli.console import console, print_json
from vlm_roofline.cli.options import FoundHardware, Json, Records, TimesOf, typed, written_to
from vlm_roofline.cli.paths import typed_path
from vlm_roofline.cli.tables import WAYS, Column, columns, shared, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from profiling.reconciling import Reconciliation

#: What may differ between rows of one method and visual token count.
_TOLD = [
    *columns(model="model", dtype="dtype"),
    *WAYS,
    *columns("1", batch="batch_size", text_tokens="text_tokens", decode_steps="output_tokens"),
]

#: Flags shown before the rest is only counted.
MOST_FLAGS = 12


def reconcile(
    context: typer.Context,
    folders: Records,
    calibration: TimesOf = "auto",
    hardware: FoundHardware = None,
    stage: Annotated[
        str, typer.Option(help="Stage of the table of runs: total, prefill, vision, decode, ...")
    ] = "total",
    plots: Annotated[
        Path | None,
        typer.Option(
            parser=typed_path, metavar="<path>", help="Also write the figures to this folder."
        ),
    ] = None,
    csv: Annotated[Path | None, written_to("Also write every row: FILE.csv.", ".csv")] = None,
    json: Json = False,
) -> None:
    """Join every measured run and stage with its estimate and split the gap into named parts."""
    from costmodel.quantities import STAGES
    from profiling.reconciling import reconcile as join
    from profiling.records.measurement import GENERATION, TOTAL

    known = (*STAGES, TOTAL, GENERATION)
    if stage not in known:
        raise InvalidInputError(f"--stage {stage!r} is unknown; there is: {', '.join(known)}")
    if json and "stage" in typed(context):
        raise InvalidInputError(
            "--stage is of the table of runs; --json has every stage: leave out one"
        )
    result = join(folders, calibration, hardware=hardware)
    if plots is not None:
        from profiling.report import reconciliation_figures, save_figures

        paths = save_figures(reconciliation_figures(result), plots)
        if not json:
            console().print(f"{len(paths)} figures in {plots}")
    if csv is not None:
        from hardware_specs.files.writing import write_file

        write_file(csv, result.to_frame().to_csv(index=False))
    if json:
        print_json(result.to_dict())
        return
    print_reconciliation(result, stage)


def print_reconciliation(result: Reconciliation, stage: str = "total") -> None:
    """Print a reconciliation for people: runs with their parts, errors, curves, flags."""
    out = console()
    rows = result.of_stage(stage)
    if not rows and result.rows:
        # Another tool's clock may have held no total.
        stage = str(result.rows[-1]["stage"])
        rows = result.of_stage(stage)
    if rows:
        out.print(_runs(result, stage))
    out.print(_errors(result))
    told = shared((*result.rows, *result.skipped), _TOLD)[1]
    for row in result.summary["series"]:
        if row["stage"] != "prefill":
            continue
        left_out = row["leave_one_count_out"]
        out.print(
            f"{_run(row, told)}, prefill over "
            f"{row['counts']} token counts: rank correlation {row['rank_correlation']}, shape error "
            f"{left_out['mape']:.1%} (worst {left_out['max']:.1%} at {left_out['worst_count']}), "
            f"knee measured {row['measured_knee'] or '-'}, predicted {row['predicted_knee'] or '-'}"
        )
    _print_counts(result)
    for row in result.rows:
        if row["measured_link_s"] is not None:
            out.print(
                f"{_run(row, told)}, {row['stage']}: in collectives "
                f"{_milliseconds(row['measured_link_s'])} ms measured, in the process that waited least; "
                f"{_milliseconds(row['predicted_link_s'])} ms predicted",
            )
    flags = list(
        dict.fromkeys(
            f"{_run(row, told)}, {row['stage']}: {flag}"
            for row in result.rows
            for flag in row["flags"]
        )
    )
    for flag in flags[:MOST_FLAGS]:
        out.print(f"! {flag}")
    if len(flags) > MOST_FLAGS:
        out.print(f"! {len(flags) - MOST_FLAGS} more flags are in --json")
    for row in result.skipped:
        out.print(f"- {_run(row, told)}: {row['status']}, {row['reason']}")
    for note in result.notes:
        out.print(f"note: {note}")


def _run(row: Mapping[str, Any], told: Sequence[Column]) -> str:
    """Say which run, or which curve over visual tokens, a row is of."""
    words = [row["method"]]
    if row.get("visual_tokens") is not None:
        words[0] += f" {row['visual_tokens']}"
    return ", ".join([*words, *(shared([row], [each])[0] for each in told if each.value in row)])


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
        console().print("; ".join(parts))


def _runs(result: Reconciliation, stage: str) -> RenderableType:
    rows = sorted(result.of_stage(stage), key=_place)
    said, differing = shared(rows, _TOLD, ["decode steps 0"])
    differing += shared(rows, columns("1", round="round"))[1]
    view = [
        *columns(method="method"),
        *differing,
        *columns(
            "1",
            visual="visual_tokens",
            measured=lambda row: _milliseconds(row["measured_s"]),
            spread=lambda row: "?" if row["noise_s"] is None else _milliseconds(row["noise_s"]),
            predicted=lambda row: _milliseconds(row["predicted_s"]),
            error=lambda row: f"{row['relative_error']:+.1%}",
            ideal=lambda row: _milliseconds(row["ideal_s"]),
        ),
        *gap_columns(rows, digits=2),
        *columns(bound="regime"),
    ]
    title = (
        f"{said}: {stage} on {result.hardware.name}, calibration {result.calibration_name or 'none'}; "
        "milliseconds"
    )
    return table(rows, view, title=title)


def _place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Order runs for people: the unreduced ones first, a sweep from many visual tokens to few."""
    return (
        row["model"], row["dtype"], row["method"] != "none", row["method"], row["mode"], row["attention"],
        row["cache"], row["batch_size"], row["text_tokens"], -row["visual_tokens"], row["round"],
    )  # fmt: skip


def gap_columns(rows: Sequence[Mapping[str, Any]], digits: int) -> list[Column]:
    """Return a column, in milliseconds, for each part of the gap that is not nothing in all rows."""
    from profiling.reconciling import LABELS, PARTS

    def moved(name: str, row: Mapping[str, Any]) -> str:
        return f"{row[name] * 1e3:+.{digits}f}"

    shown = [name for name in PARTS if any(abs(row[name]) >= 5e-7 for row in rows)]
    return [Column(LABELS[name], partial(moved, name), "1") for name in shown]


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.2f}"


def _errors(result: Reconciliation) -> RenderableType:
    groups = [{"name": name, **found} for name, found in result.summary["time"].items()]
    groups += [
        {"name": f"total, {name}-bound", **found}
        for name, found in result.summary["by_regime"].items()
    ]
    return table(
        groups,
        [
            Column("time of", "name"),
            Column("rows", "count", "1"),
            *columns("%", MAPE="mape", median="median", p90="p90", worst="max"),
            Column("bias", lambda row: f"{row['bias']:.3f}", "1"),
            *columns("%", in_interval="coverage", in_noise="within_noise"),
        ],
        title="errors",
    )
