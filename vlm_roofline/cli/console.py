"""Output of every command: a console for people, JSON for programs, progress bars."""

from __future__ import annotations

import json
import math
import sys
import warnings
from collections.abc import Sized
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from hardware_specs.files.reading import DamagedFileWarning
from hardware_specs.showing import harmless, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import TextIO

    import pandas as pd
    from rich.console import Console
    from rich.segment import Segment

T = TypeVar("T")


@lru_cache(maxsize=1)
def _consoles() -> tuple[Console, Console]:
    from rich.console import Console
    from rich.segment import Segment

    class Harmless(Console):
        """A console on which names, paths and texts of others are nothing but text."""

        def render(self, *args: Any, **options: Any) -> Iterator[Segment]:
            for text, style, control in super().render(*args, **options):
                yield Segment(text if control else harmless(text), style, control)

    plain: Any = {"markup": False, "emoji": False, "highlight": False}
    # A pipe or a file has no width of its own: give tables room instead of folding them.
    width = None if sys.stdout.isatty() else 160
    return Harmless(width=width, **plain), Harmless(stderr=True, **plain)


def console() -> Console:
    """Return the console for results, on stdout."""
    return _consoles()[0]


def error_console() -> Console:
    """Return the console for remarks and progress, on stderr."""
    return _consoles()[1]


def print_json(document: object) -> None:
    """Write one JSON document to stdout; NaN and infinity are refused, since JSON has neither."""
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False, default=_plain) + "\n")


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as JSON has them, those of a named index numbered by it.

    What is not defined, or infinite, is None.

    >>> import pandas as pd
    >>> rows_of(pd.DataFrame({"a": [1, 2], "b": [0.5, float("nan")]}))
    [{'a': 1, 'b': 0.5}, {'a': 2, 'b': None}]
    """
    table = table.reset_index() if table.index.name else table
    known = table.notna() & ~table.isin([math.inf, -math.inf])
    rows: Any = table.astype(object).where(known, None).to_dict("records")
    return list(rows)


def _plain(value: Any) -> Any:
    """Convert numpy scalars and arrays, paths and tuples to JSON's types."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


def warn(*messages: str) -> None:
    """Write warnings to stderr, a line each."""
    for message in messages:
        remark(f"warning: {one_line(message)}")


def remark(message: str) -> None:
    """Write a line to stderr, whatever text it carries."""
    sys.stderr.write(f"{harmless(message)}\n")


@contextmanager
def damage_told() -> Iterator[None]:
    """Tell of every damaged file that is passed over, in a line of its own."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, DamagedFileWarning):
                warn(str(message))
            else:
                usual(message, category, filename, lineno, file, line)

        warnings.simplefilter("always", DamagedFileWarning)
        warnings.showwarning = show
        yield


@contextmanager
def bars(*, lines: bool = False) -> Iterator[Callable[[str, int, int | None], None]]:
    """Give what shows how far each step is, called with its name, what is done and the total.

    On a terminal a step is a bar with the time left. Elsewhere it is nothing, or with `lines` its name, once.
    """
    steps: dict[str, Any] = {}
    if not sys.stderr.isatty():

        def named(step: str, *_: Any) -> None:
            if lines and step not in steps:
                steps[step] = None
                remark(step)

        yield named
        return
    from rich.progress import Progress

    with Progress(console=error_console(), transient=not lines) as drawn:

        def shown(step: str, done: int, total: int | None) -> None:
            if step not in steps:
                steps[step] = drawn.add_task(step)
            drawn.update(steps[step], completed=done, total=total)

        yield shown


def progress(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items behind a progress bar.

    Args:
        items: the items to go through.
        description: what is being done, in two or three words.
        total: how many there are, when `items` has no length.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with bars() as update:
        update(description, 0, total)
        for done, item in enumerate(items, 1):
            yield item
            update(description, done, total)
