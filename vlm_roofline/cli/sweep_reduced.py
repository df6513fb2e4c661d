"""`vlm-roofline sweep --top, --pareto, --histogram, --parts`: what is kept of a sweep larger than memory."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import InvalidInputError
from vlm_roofline.cli.console import bars
from vlm_roofline.cli.tables import Column

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd

    from costmodel.questions.reducers import Reducer

_UNITS = {"flops": "FLOP", "bytes": "B", "s": "s"}


def reducer_of(
    *,
    top: int | None,
    by: str | None,
    pareto: str | None,
    histogram: str | None,
    parts: Path | None,
    per: str | None,
    fits: bool,
) -> Reducer[Any] | None:
    """Return what the options ask for; None where all rows are wanted.

    Raises:
        InvalidInputError: two answers are asked for, or an option that none of them has.
    """
    from costmodel.questions import reducers
    from costmodel.questions.parts import parquet_parts

    asked = {"--top": top, "--pareto": pareto, "--histogram": histogram, "--parts": parts}
    given = [name for name, value in asked.items() if value is not None]
    if len(given) > 1:
        raise InvalidInputError(f"{' and '.join(given)} are different answers; ask for one")
    if by is not None and top is None:
        raise InvalidInputError("--by says by what --top goes; give --top as well")
    kept: dict[str, Any] = {"per": _words(per), "fits": fits}
    if top is not None:
        return reducers.top_k(top, by or "time_s", **kept)
    if pareto is not None:
        if len(_words(pareto)) < 2:
            raise InvalidInputError(
                f"--pareto {pareto!r} is not two columns or more; for one there is --top, with --by"
            )
        return reducers.pareto(*_words(pareto), **kept)
    if histogram is not None:
        return reducers.histogram(histogram, **kept)
    if per is not None or not fits:
        raise InvalidInputError(
            "--per and --any-memory are for rows that are picked or counted; give --top, --pareto or "
            "--histogram as well"
        )
    return None if parts is None else parquet_parts(parts)


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",")) if text else ()


def reduced(plan: dict[str, Any], **asked: Any) -> pd.DataFrame:
    """Return a sweep's answer, behind a progress bar where stderr is a terminal."""
    from costmodel import sweep

    with bars() as update:
        return sweep(**plan, **asked, on_progress=partial(update, "pricing"))


def axis_columns(axes: Sequence[str], shown: Sequence[Column]) -> list[Column]:
    """Return columns of the axes that a table does not have."""
    there = {column.value for column in shown}
    names = [axis.removeprefix("-") for axis in axes]
    return [
        Column(name.replace("_", " "), name, _unit(name)) for name in names if name not in there
    ]


def interval_columns(per: Sequence[str], axis: str) -> list[Column]:
    """Return the columns of a histogram."""
    unit = _unit(axis)
    return [
        *(Column(name.replace("_", " "), name) for name in per),
        Column("from", "low", unit),
        Column("to", "high", unit),
        Column("rows", "rows", "1"),
    ]


def _unit(name: str) -> str:
    return _UNITS.get(name.rsplit("_", 1)[-1], "1")
