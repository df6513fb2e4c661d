"""Read `data/collected.csv`: scores of reduced models from two dozen tables, with whose table each stands in.

A method is best judged by its own authors' table; rivals rerun or reprint it, and benchmarks run all alike.
Digits are as printed, but for CIDEr, which is a fraction of 1 here (its note says so).
"""

from __future__ import annotations

import csv
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from costmodel.accuracy.rows import EVIDENCE, OWNERS, SETTINGS, TRAININGS, Score, Source
from hardware_specs.errors import InvalidFileError

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = "costmodel.accuracy"
#: What a column's value must be one of.
_CLOSED = (
    ("evidence", EVIDENCE),
    ("setting", SETTINGS),
    ("training", TRAININGS),
    ("owner", OWNERS),
)


def _lines(name: str) -> Iterator[dict[str, str]]:
    text = files(FOLDER).joinpath(f"data/{name}").read_text("utf-8")
    return iter(csv.DictReader(text.splitlines()))


@lru_cache(maxsize=1)
def collected_sources() -> dict[str, Source]:
    """Return the documents that these scores were read in, by key."""
    return {
        row["source"]: Source(
            row["source"],
            row["read"],
            f"https://arxiv.org/abs/{row['arxiv']}" if row["arxiv"] else "",
            "the tables that the rows name",
        )
        for row in _lines("collected_sources.csv")
    }


@lru_cache(maxsize=1)
def collected_scores() -> tuple[Score, ...]:
    """Return the scores, in the order of the file.

    Raises:
        InvalidFileError: a row that does not hold what it must.
    """
    return tuple(read_row(row) for row in _lines("collected.csv"))


def read_row(row: dict[str, str]) -> Score:
    """Return one row's score.

    Raises:
        InvalidFileError: a value that its column does not have, or a number that is none.
    """
    where = f"collected.csv, {row['paper']} Table {row['table']}, {row['label']!r}"
    for column, there_is in _CLOSED:
        if row[column] not in there_is:
            raise InvalidFileError(
                f"{where}: {column} {row[column]!r} is none of {', '.join(there_is)}"
            )
    if row["source"] not in collected_sources():
        raise InvalidFileError(f"{where}: there is no source {row['source']!r}")
    try:
        found: dict[str, Any] = {**row, "flops_ratio": None, "sources": (row["source"],)}
        del found["source"]
        found |= {
            "keep": _keep(row["keep"]),
            "layer": int(row["layer"]) if row["layer"] else None,
            "visual_tokens": round(float(row["visual_tokens"])) if row["visual_tokens"] else None,
            "score": float(row["score"]),
            "baseline": float(row["baseline"]),
        }
        return Score(**found)
    except ValueError as error:
        raise InvalidFileError(f"{where}: {error}") from None


def _keep(text: str) -> int | float | None:
    if not text:
        return None
    return float(text) if "." in text else int(text)
