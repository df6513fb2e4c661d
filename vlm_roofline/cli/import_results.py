"""`vlm-roofline import`: other tools' results as records that the other commands read."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from hardware_specs.errors import InvalidInputError
from vlm_roofline.cli.console import console, print_json
from vlm_roofline.cli.options import Json, hardware_option
from vlm_roofline.cli.paths import typed_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from profiling.importing import Imported

#: Rows that became no record, of one reason, that are named.
MOST_NAMED = 5


def import_results(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            parser=typed_path,
            help="Results of vLLM bench (serve, latency), optimum-benchmark, lmms-eval, or tables of "
            "TensorRT Edge-LLM.",
        ),
    ],
    out: Annotated[
        Path, typer.Option(parser=typed_path, metavar="<path>", help="Folder for the records.")
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[THEIRS=]OURS",
            help="The model: a shipped name, a config or its folder; THEIRS is what a file calls it.",
        ),
    ] = None,
    hardware: Annotated[
        str | None, hardware_option("The device, where a file does not name it.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="The arithmetic, likewise: fp16, awq.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Sequences, likewise.")] = None,
    visual_tokens: Annotated[
        int | None, typer.Option(help="Visual tokens of a prompt, likewise.")
    ] = None,
    text_tokens: Annotated[
        int | None, typer.Option(help="Text tokens of a prompt, likewise.")
    ] = None,
    output_tokens: Annotated[
        int | None, typer.Option(help="Tokens made, the first included, likewise.")
    ] = None,
    json: Json = False,
) -> None:
    """Turn other tools' results into records, each with what its clock held."""
    from profiling.importing import Told, read_results, write_records

    told = Told(
        _named(model or []), hardware, dtype, batch_size, visual_tokens, text_tokens, output_tokens
    )
    found = [read_results(path, told) for path in files]
    if not any(each.records for each in found):
        first = next((item for each in found for item in each.left_out), None)
        why = "no rows" if first is None else f"{first.where}: {first.why}"
        raise InvalidInputError(f"no row became a record; {why}")
    folders = write_records(found, out)
    if json:
        print_json(_document(found, folders))
    else:
        _print(found, folders)


def _named(models: Sequence[str]) -> dict[str, str]:
    """Return models by what a file calls them; an empty name stands for all.

    >>> _named(["llava-1.5-7b"]), _named(["a/b=llama-2-7b"])
    ({'': 'llava-1.5-7b'}, {'a/b': 'llama-2-7b'})
    """
    pairs = (each.rpartition("=") for each in models)
    return {theirs: ours for theirs, _, ours in pairs}


def _document(found: Sequence[Imported], folders: Mapping[Path, str | None]) -> dict[str, object]:
    return {
        "schema_version": 1,
        "folders": {str(folder): device for folder, device in folders.items()},
        "files": [
            {
                "source": each.source,
                "format": each.format,
                "reader": each.tested,
                "records": len(each.records),
                "boundaries": sorted({record.boundary or "" for record in each.records}),
                "left_out": [{"where": item.where, "why": item.why} for item in each.left_out],
            }
            for each in found
        ],
    }


def _print(found: Sequence[Imported], folders: Mapping[Path, str | None]) -> None:
    from rich.padding import Padding

    out = console()
    for each in found:
        out.print(
            f"{each.source}: {len(each.records)} records ({each.format}; its reader: {each.tested})"
        )
        for boundary in sorted({record.boundary or "" for record in each.records}):
            out.print(Padding(f"the clock ran {boundary}", (0, 0, 0, 2)))
        reasons: dict[str, list[str]] = {}
        for item in each.left_out:
            reasons.setdefault(item.why, []).append(item.where)
        for why, rows in reasons.items():
            named = ", ".join(rows[:MOST_NAMED]) + (", ..." if len(rows) > MOST_NAMED else "")
            out.print(Padding(f"left out {len(rows)}: {why} ({named})", (0, 0, 0, 2)))
    for folder, device in folders.items():
        known = "" if device is None else f" -d {device}"
        # A command is copied, so it stays one line.
        out.print(f"next: vlm-roofline reconcile {quote(str(folder))}{known}", soft_wrap=True)
