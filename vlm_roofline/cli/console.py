"""What every command prints with: a console for people, JSON for programs, progress for the patient."""

from __future__ import annotations

import json
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import Console

T = TypeVar("T")


@lru_cache(maxsize=1)
def _consoles() -> tuple[Console, Console]:
    from rich.console import Console

    # A pipe or a file has no width of its own: give tables room instead of folding them.
    width = None if sys.stdout.isatty() else 160
    return Console(width=width), Console(stderr=True)


def console() -> Console:
    """Return the console for results, on stdout."""
    return _consoles()[0]


def error_console() -> Console:
    """Return the console for remarks and progress, on stderr."""
    return _consoles()[1]


def print_json(document: object) -> None:
    """Write one JSON document to stdout; NaN and infinity are refused, since JSON has neither."""
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    """Turn numpy scalars and arrays, paths and tuples into what JSON knows."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


def warn(message: str) -> None:
    """Write one warning line to stderr."""
    sys.stderr.write(f"warning: {message}\n")


def progress(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items behind a progress bar with the time left; silent when stderr is no terminal.

    Args:
        items: what to go through.
        description: what is being done, in two or three words.
        total: how many there are, when `items` has no length.
    """
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.progress import track

    yield from track(
        items, description=description, total=total, console=error_console(), transient=True
    )
