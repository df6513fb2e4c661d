"""`vlm-roofline sweep`: every combination, streamed to CSV or Parquet, or as a table in a terminal.

Or what is kept of them: `vlm_roofline.cli.sweep_reduced`.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from costmodel.questions.parts import GROUP_ROWS, frames, write_parquet
from hardware_specs.errors import InvalidInputError
from hardware_specs.files.writing import replacing
from hardware_specs.showing import harmless
from vlm_roofline.cli.console import console, print_json, progress, rows_of, warn
from vlm_roofline.cli.options import Json, request_options, written_to
from vlm_roofline.cli.paths import typed_path
from vlm_roofline.cli.sweep_reduced import (
    axis_columns,
    interval_columns,
    reduced,
    reducer_of,
)
from vlm_roofline.cli.tables import Column, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pandas as pd

    from costmodel.questions.chunks import Chunk

#: Rows that a terminal shows.
SHOWN_ROWS = 100


@request_options("convention", several=True)
def sweep(
    given: dict[str, Any],
    *,
    out: Annotated[
        Path | None,
        written_to(
            "FILE.csv or FILE.parquet. Without it: a table in a terminal, CSV into a pipe.",
            ".csv",
            ".parquet",
        ),
    ] = None,
    stage_columns: Annotated[
        bool, typer.Option("--stage-columns", help="Add the costs of every stage.")
    ] = False,
    errors: Annotated[
        str, typer.Option(help="raise, or keep rows that cannot be priced, with their reason.")
    ] = "raise",
    count: Annotated[
        int | None, typer.Option("--top", help="Keep so many of the best rows alone.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(help="What --top goes by: a column, with - where more is better. [time_s]"),
    ] = None,
    pareto: Annotated[
        str | None,
        typer.Option(metavar="COLUMNS", help="Keep the rows that no other beats on all of these."),
    ] = None,
    histogram: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Count the rows by their value.")
    ] = None,
    per: Annotated[
        str | None,
        typer.Option(metavar="ARGUMENTS", help="Keep or count apart by these, such as hardware."),
    ] = None,
    any_memory: Annotated[
        bool, typer.Option("--any-memory", help="Keep or count what does not fit as well.")
    ] = False,
    parts: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            parser=typed_path,
            help="Write Parquet in parts; started again, it goes on.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes for the answers above. [all processors]")
    ] = None,
    engine: Annotated[
        str, typer.Option(help="Where they run: local, or ray: on a cluster.")
    ] = "local",
    json: Json = False,
) -> None:
    """Price every combination of the arguments, one row each, or what is asked for of them."""
    from costmodel.questions.sweep_plan import SweepPlan

    asked = [name for name, value in given.items() if isinstance(value, list)]
    reducer = reducer_of(
        top=count,
        by=by,
        pareto=pareto,
        histogram=histogram,
        parts=parts,
        per=per,
        fits=not any_memory,
    )
    if parts is not None and out is not None:
        raise InvalidInputError("--parts writes its own files; leave out --out")
    if reducer is not None:
        _answer(
            given, out, asked, json,
            reduce=reducer, errors=errors, stage_columns=stage_columns, engine=engine, workers=workers,
        )  # fmt: skip
        return
    if workers is not None or engine != "local":
        raise InvalidInputError(
            "--workers and --engine are for --top, --pareto, --histogram and --parts; give one of these"
        )
    plan = SweepPlan(**given)
    chunks = plan.chunks(stage_columns=stage_columns, errors=errors)
    if out is None:
        _print(chunks, json, asked)
        return
    write = _WRITERS[out.suffix.lower()]
    total = -(-plan.rows // GROUP_ROWS)
    rows = write(out, progress(_told(frames(chunks)), "pricing", total))
    if json:
        print_json({"schema_version": 1, "out": str(out), "rows": rows})
    else:
        console().print(f"{rows:,} rows written to {out}")


def _answer(
    given: dict[str, Any], out: Path | None, asked: list[str], json: bool, **how: Any
) -> None:
    """Reduce a sweep, and write or print what is left of it."""
    from costmodel.questions.parts import ParquetParts
    from costmodel.questions.reducers import Histogram

    reducer = how["reduce"]
    answer = reduced(given, **how)
    warn(*answer.attrs["warnings"])
    counted = {name: answer.attrs[name] for name in ("rows", "unpriced")}
    if out is not None:
        _WRITERS[out.suffix.lower()](out, [answer.reset_index() if answer.index.name else answer])
    if json:
        print_json({"schema_version": 1, "answer": rows_of(answer), **counted})
        return
    said = f"{counted['rows']:,} scenarios"
    if counted["unpriced"]:
        said += f", {counted['unpriced']:,} of them not priced"
    if isinstance(reducer, ParquetParts):
        console().print(f"{said}, {len(answer):,} files in {reducer.folder}")
    elif out is not None:
        console().print(f"{said}; {len(answer):,} rows written to {out}")
    elif isinstance(reducer, Histogram):
        console().print(table(rows_of(answer), interval_columns(reducer.per, reducer.axis)))
        console().print(said)
    else:
        if len(answer):
            # What all picked rows have in common is news as well.
            varied = [name for name in asked if len(given[name]) > 1]
            _show(iter([answer.reset_index()]), [*varied, *reducer.per], reducer.axes)
        none = "" if len(answer) else ": none has a value there and fits in memory"
        console().print(f"{said}; {len(answer):,} kept{none}")


def _told(tables: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Tell each warning of tables once."""
    told: set[str] = set()
    for frame in tables:
        for line in frame.attrs["warnings"]:
            if line not in told:
                told.add(line)
                warn(line)
        yield frame


def _print(chunks: Iterable[Chunk], json: bool, asked: list[str]) -> None:
    if json:
        tables = list(_told(frames(chunks)))
        rows = [row for frame in tables for row in rows_of(frame)]
        told = dict.fromkeys(text for frame in tables for text in frame.attrs["warnings"])
        print_json({"schema_version": 1, "rows": rows, "warnings": list(told)})
        return
    if sys.stdout.isatty():
        _show(_told(frames(chunks)), asked)
        return
    for number, frame in enumerate(_told(frames(chunks))):
        typer.echo(harmless(frame.to_csv(index=False, header=number == 0)), nl=False)


def _show(tables: Iterator[pd.DataFrame], asked: list[str], axes: Sequence[str] = ()) -> None:
    """Show what differs from row to row, and what the rows cost; the file has the other columns."""
    frame = next(tables)
    more = len(frame) - SHOWN_ROWS
    frame = frame.head(SHOWN_ROWS)
    differ = [n for n in dict.fromkeys(asked) if axes or frame[n].nunique(dropna=False) > 1]
    shown = [
        *(
            # Numbers stand to the right; names, or names and numbers, to the left.
            Column(name.replace("_", " "), name, "1" if frame[name].dtype.kind in "iuf" else "")
            for name in differ or ["model"]
        ),
        Column("FLOP", "flops", "FLOP", 1),
        Column("kernels", "kernels", "1", 2),
        Column("TTFT", "ttft_s", "s"),
        Column("TPOT", "tpot_s", "s", 1),
        *([Column("total", "time_s", "s")] if frame["tpot_s"].notna().any() else []),
        Column("at best", "ideal_time_s", "s", 2),
        Column("memory", "peak_memory_bytes", "B", 1),
        Column("fits", lambda row: "?" if row["fits"] is None else row["fits"], priority=1),
        Column("bound", "bound", priority=1),
    ]
    shown += axis_columns(axes, shown)
    rows = rows_of(frame)
    shown = [each for each in shown if any(each.of(row) != "-" for row in rows)]
    console().print(table(rows, shown))
    if more > 0 or next(tables, None) is not None:
        console().print(
            f"the first {SHOWN_ROWS} rows; --out FILE.csv or FILE.parquet writes all of them"
        )


def _write_csv(out: Path, frames: Iterable[pd.DataFrame]) -> int:
    rows = 0
    with replacing(out) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        for number, frame in enumerate(frames):
            frame.to_csv(text, index=False, header=number == 0)
            rows += len(frame)
        text.detach()
    return rows


_WRITERS = {".csv": _write_csv, ".parquet": write_parquet}
