"""`vlm-roofline sweep`: every combination, streamed to CSV or Parquet."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hardware_specs.errors import InvalidInputError, MissingDependencyError
from hardware_specs.files.writing import replacing
from vlm_roofline.cli.console import console, harmless, print_json, progress
from vlm_roofline.cli.options import Json, parse_counts, parse_image_size, parse_keep, split

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pandas as pd

    from costmodel.questions.chunks import Chunk

#: Rows written at a time: large enough for a good Parquet row group, small enough for any memory.
BATCH_ROWS = 1 << 18


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("sweep")(sweep)


def sweep(
    model: Annotated[str, typer.Argument(help="Models, comma-separated.")],
    hardware: Annotated[str, typer.Option("--hardware", "-d", help="Devices, comma-separated.")],
    out: Annotated[
        Path | None, typer.Option(help="FILE.csv or FILE.parquet; CSV to stdout when absent.")
    ] = None,
    visual_tokens: Annotated[
        str | None, typer.Option(help="Counts and ranges: 1,64 or 0:576:16.")
    ] = None,
    text_tokens: Annotated[str, typer.Option(help="Counts and ranges.")] = "40",
    batch_size: Annotated[str, typer.Option(help="Counts and ranges.")] = "1",
    output_tokens: Annotated[str, typer.Option(help="Counts and ranges.")] = "0",
    precision: Annotated[str, typer.Option(help="Names, comma-separated.")] = "fp16",
    method: Annotated[str, typer.Option(help="Names, comma-separated; none for none.")] = "none",
    keep: Annotated[str | None, typer.Option(help="Counts or ratios, comma-separated.")] = None,
    layer: Annotated[str | None, typer.Option(help="Layers K, comma-separated.")] = None,
    execution: Annotated[str, typer.Option(help="Plans, comma-separated.")] = "fused",
    calibration: Annotated[str | None, typer.Option(help="A calibration file or name.")] = None,
    attention: Annotated[str, typer.Option(help="flash, eager.")] = "flash",
    logits: Annotated[str, typer.Option(help="last, all.")] = "last",
    image_size: Annotated[str | None, typer.Option(help="HEIGHTxWIDTH, comma-separated.")] = None,
    frames: Annotated[str | None, typer.Option(help="Frames, comma-separated.")] = None,
    vision_layers: Annotated[str, typer.Option(help="executed, useful.")] = "executed",
    stage_columns: Annotated[
        bool, typer.Option("--stage-columns", help="Add the costs of every stage.")
    ] = False,
    errors: Annotated[
        str, typer.Option(help="raise, or keep rows that cannot be priced, with their reason.")
    ] = "raise",
    json: Json = False,
) -> None:
    """Price every combination of the arguments, one row each."""
    from costmodel.questions.sweeps import SweepPlan

    arguments: dict[str, Any] = {
        "text_tokens": parse_counts("--text-tokens", text_tokens),
        "batch_size": parse_counts("--batch-size", batch_size),
        "output_tokens": parse_counts("--output-tokens", output_tokens),
        "precision": split(precision),
        "method": split(method),
        "execution": split(execution),
        "calibration": calibration,
        "attention": split(attention),
        "logits": split(logits),
        "vision_layers": split(vision_layers),
    }
    if visual_tokens is not None:
        arguments["visual_tokens"] = parse_counts("--visual-tokens", visual_tokens)
    if keep is not None:
        arguments["keep"] = [parse_keep(part) for part in split(keep)]
    if layer is not None:
        arguments["layer"] = parse_counts("--layer", layer)
    if image_size is not None:
        arguments["image_size"] = [parse_image_size(part) for part in split(image_size)]
    if frames is not None:
        arguments["frames"] = parse_counts("--frames", frames)
    plan = SweepPlan(split(model), split(hardware), **arguments)
    chunks = plan.chunks(stage_columns=stage_columns, errors=errors)
    if out is None:
        _print(chunks, json)
        return
    write = _writer(out)
    total = -(-plan.rows // BATCH_ROWS)
    rows = write(out, progress(_frames(chunks), "pricing", total))
    if json:
        print_json({"schema_version": 1, "out": str(out), "rows": rows})
    else:
        console().print(f"{rows:,} rows written to {out}")


def _frames(chunks: Iterable[Chunk]) -> Iterator[pd.DataFrame]:
    """Join chunks into frames of about `BATCH_ROWS` rows."""
    from costmodel.questions.chunks import join_chunks

    held: list[Chunk] = []
    rows = 0
    for chunk in chunks:
        held.append(chunk)
        rows += chunk.rows
        if rows >= BATCH_ROWS:
            yield join_chunks(held)
            held, rows = [], 0
    if held:
        yield join_chunks(held)


def _print(chunks: Iterable[Chunk], json: bool) -> None:
    if json:
        rows = [
            {name: _plain(value) for name, value in row.items()}
            for frame in _frames(chunks)
            for row in frame.to_dict("records")
        ]
        print_json({"schema_version": 1, "rows": rows})
        return
    for number, frame in enumerate(_frames(chunks)):
        typer.echo(harmless(frame.to_csv(index=False, header=number == 0)), nl=False)


def _plain(value: Any) -> Any:
    """JSON has no NaN: what is not defined is null."""
    import pandas as pd

    return None if pd.isna(value) else value


def _writer(out: Path) -> Any:
    writers = {".csv": _write_csv, ".parquet": _write_parquet}
    write = writers.get(out.suffix.lower())
    if write is None:
        raise InvalidInputError(f"--out {str(out)!r} ends neither in .csv nor in .parquet")
    return write


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
