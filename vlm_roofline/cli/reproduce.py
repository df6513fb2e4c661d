"""`vlm-roofline reproduce`: published tables beside their recomputation, with a verdict per cell."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hardware_specs.errors import InvalidInputError
from hardware_specs.files.writing import write_file
from vlm_roofline.cli.console import console, print_json
from vlm_roofline.cli.options import Json, written_to


def reproduce(
    table: Annotated[
        str, typer.Argument(metavar="list|TABLE", help="A table's name, or `list` for all of them.")
    ],
    json: Json = False,
    out: Annotated[
        Path | None, written_to("Also write every row and column to FILE.csv.", ".csv")
    ] = None,
) -> None:
    """Recompute a published table and say of each number whether it holds."""
    from costmodel.reproduce import reproduce as recompute

    if table == "list":
        if out is not None:
            raise InvalidInputError("--out writes one table's rows; name a table instead of `list`")
        _list(json=json)
        return
    result = recompute(table)
    if out is not None:
        write_file(out, result.to_csv())
    if json:
        print_json(result.to_dict())
        return
    from vlm_roofline.cli.reproduce_view import reproduction_view

    for part in reproduction_view(result, console().width):
        console().print(part)
    if out is not None:
        console().print(f"\n{len(result.rows)} rows written to {out}")


def _list(*, json: bool) -> None:
    from costmodel.reproduce import describe_tables

    tables = describe_tables()
    if json:
        print_json({"tables": [{"name": name, "title": title} for name, title in tables.items()]})
        return
    from vlm_roofline.cli.reproduce_view import tables_view

    console().print(tables_view(tables))
