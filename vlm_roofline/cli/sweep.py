"""`vlm-roofline sweep`: every combination, streamed to CSV or Parquet, or as a table in a terminal."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hardware_specs.errors import MissingDependencyError
from hardware_specs.files.writing import replacing
from hardware_specs.showing import harmless
from vlm_roofline.cli.console import console, print_json, progress, warn
from vlm_roofline.cli.options import Json, request_options, written_to

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pandas as pd

    from costmodel.questions.chunks import Chunk

#: Rows written at a time: large enough for a good Parquet row group, small enough for any memory.
BATCH_ROWS = 1 << 18
#: Rows that a terminal shows.
SHOWN_ROWS = 100


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("sweep")(sweep)


@request_options("convention", several=True)
def sweep(
    given: dict[str, Any],
    *,
    out: Annotated[
        Path | None,
        written_to(
            "FILE.csv or FILE.parquet. Without it: a table in a terminal, CSV into a pipe.",
            ".csv", ".parquet",
        ),
    ] = None,
    stage_columns: Annotated[
        bool, typer.Option("--stage-columns", help="Add the costs of every stage.")
    ] = False,
    errors: Annotated[
        str, typer.Option(help="raise, or keep rows that cannot be priced, with their reason.")
    ] = "raise",
    json: Json = False,
) -> None:  # fmt: skip
    """Price every combination of the arguments, one row each."""
    from costmodel.questions.sweeps import SweepPlan

    plan = SweepPlan(**given)
    chunks = plan.chunks(stage_columns=stage_columns, errors=errors)
    if out is None:
        _print(chunks, json, [name for name, value in given.items() if isinstance(value, list)])
        return
    write = {".csv": _write_csv, ".parquet": _write_parquet}[out.suffix.lower()]
    total = -(-plan.rows // BATCH_ROWS)
    rows = write(out, progress(_frames(chunks), "pricing", total))
    if json:
        print_json({"schema_version": 1, "out": str(out), "rows": rows})
    else:
        console().print(f"{rows:,} rows written to {out}")


def _frames(chunks: Iterable[Chunk]) -> Iterator[pd.DataFrame]:
    """Join chunks into frames of about `BATCH_ROWS` rows, and tell each warning once."""
    from costmodel.questions.chunks import join_chunks

    held: list[Chunk] = []
    told: set[str] = set()
    rows = 0
    for chunk in chunks:
        held.append(chunk)
        rows += chunk.rows
        for line in chunk.warnings:
            if line not in told:
                told.add(line)
                warn(line)
        if rows >= BATCH_ROWS:
            yield join_chunks(held)
            held, rows = [], 0
    if held:
        yield join_chunks(held)


def _print(chunks: Iterable[Chunk], json: bool, asked: list[str]) -> None:
    if json:
        frames = list(_frames(chunks))
        rows = [
            {name: _plain(value) for name, value in row.items()}
            for frame in frames
            for row in frame.to_dict("records")
        ]
        told = dict.fromkeys(text for frame in frames for text in frame.attrs["warnings"])
        print_json({"schema_version": 1, "rows": rows, "warnings": list(told)})
        return
    if sys.stdout.isatty():
        _show(_frames(chunks), asked)
        return
    for number, frame in enumerate(_frames(chunks)):
        typer.echo(harmless(frame.to_csv(index=False, header=number == 0)), nl=False)


def _show(frames: Iterator[pd.DataFrame], asked: list[str]) -> None:
    """Show what differs from row to row, and what the rows cost; the file has the other columns."""
    from vlm_roofline.cli.tables import Column, table

    frame = next(frames)
    more = len(frame) - SHOWN_ROWS
    frame = frame.head(SHOWN_ROWS)
    differ = [name for name in asked if frame[name].nunique(dropna=False) > 1] or ["model"]
    shown = [
        *(Column(name.replace("_", " "), name) for name in differ),
        Column("FLOP", "flops", "FLOP", 1),
        Column("kernels", "kernels", "1", 2),
        Column("TTFT", "ttft_s", "s"),
        Column("TPOT", "tpot_s", "s", 1),
        *([Column("total", "time_s", "s")] if frame["tpot_s"].notna().any() else []),
        Column("at best", "ideal_time_s", "s", 2),
        Column("memory", "peak_memory_bytes", "B", 1),
        Column("fits", lambda row: {True: "yes", False: "no"}.get(row["fits"], "?"), priority=1),
        Column("bound", "bound", priority=1),
    ]
    rows = [
        {name: _plain(value) for name, value in row.items()} for row in frame.to_dict("records")
    ]
    shown = [each for each in shown if any(each.of(row) != "-" for row in rows)]
    console().print(table(rows, shown))
    if more > 0 or next(frames, None) is not None:
        console().print(
            f"the first {SHOWN_ROWS} rows; --out FILE.csv or FILE.parquet writes all of them"
        )


def _plain(value: Any) -> Any:
    """JSON has no NaN: what is not defined is null."""
    import pandas as pd

    return None if pd.isna(value) else value


def _write_csv(out: Path, frames: Iterable[pd.DataFrame]) -> int:
    rows = 0
    with replacing(out) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        for number, frame in enumerate(frames):
            frame.to_csv(text, index=False, header=number == 0)
            rows += len(frame)
        text.detach()
    return rows


def _write_parquet(out: Path, frames: Iterable[pd.DataFrame]) -> int:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingDependencyError("pyarrow", "analysis") from None
    rows = 0
    writer = None
    with replacing(out) as file:
        try:
            for frame in frames:
                table = _plain_types(pa.Table.from_pandas(frame, preserve_index=False), pa)
                if writer is None:
                    writer = pq.ParquetWriter(file, table.schema)
                writer.write_table(table.select(writer.schema.names).cast(writer.schema))
                rows += len(frame)
        finally:
            if writer is not None:
                writer.close()
    return rows


def _plain_types(table: Any, pa: Any) -> Any:
    """Write names as text, whichever of them a piece happens to hold."""
    for position, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(position, field.name, table.column(position).cast(pa.string()))
    return table
