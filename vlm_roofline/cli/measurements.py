"""`vlm-roofline measurements`: show records that were measured before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hardware_specs.errors import InvalidInputError
from hardware_specs.showing import harmless
from vlm_roofline.cli.console import console, print_json, rows_of
from vlm_roofline.cli.options import Json
from vlm_roofline.cli.paths import typed_path


def measurements(
    folder: Annotated[
        Path,
        typer.Argument(parser=typed_path, help="A folder of records, or one .json or .jsonl."),
    ],
    csv: Annotated[bool, typer.Option("--csv", help="Print every stage as CSV.")] = False,
    share: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.zip",
            parser=typed_path,
            help="Pack them for others, without paths, names and serial numbers, and list what the "
            "archive reveals.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show the records in a folder; damaged files are named and passed over."""
    if csv and json:
        raise InvalidInputError("--csv and --json are two formats; leave out one")
    if share is not None:
        if csv:
            raise InvalidInputError("--share prints what it reveals, no table; leave out --csv")
        _share(folder, share, json)
        return
    from profiling.records.frame import measurements_frame
    from profiling.records.storage import iterate_measurements
    from vlm_roofline.cli.measurement_table import measurement_table

    records = [(path.name, record) for path, record in iterate_measurements(folder)]
    if not records:
        raise InvalidInputError(f"no measurements in {folder}")
    if json or csv:
        frame = measurements_frame(records)
        if csv:
            typer.echo(harmless(frame.to_csv(index=False)), nl=False)
        else:
            print_json({"schema_version": 1, "rows": rows_of(frame)})
        return
    console().print(measurement_table([record for _, record in records]))


def _share(folder: Path, path: Path, json: bool) -> None:
    from profiling.sharing import share_measurements

    shared = share_measurements(folder, path)
    if json:
        print_json({"schema_version": 1, **vars(shared)})
        return
    lines = [f"{shared.path}: {shared.records} records, {shared.profiles} profiler passes"]
    lines += [f"  reveals {kind}: {'; '.join(items)}" for kind, items in shared.reveals.items()]
    lines += [f"  removed {each}" for each in shared.removed]
    typer.echo(harmless("\n".join(lines)))
