"""Options that several commands share, and the parsing of their values."""

from __future__ import annotations

from typing import Annotated

import typer

from hardware_specs.errors import InvalidInputError

#: Numbers that one option may name; the combinations of several options go far beyond.
MOST_COUNTS = 1_000_000

Hardware = Annotated[
    str, typer.Option("--hardware", "-d", help="Device id (see `specs list`) or a YAML file.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def parse_keep(text: str | None) -> int | float | None:
    """Return a count for `64`, a ratio for `0.1`, None for nothing.

    >>> parse_keep("64"), parse_keep("0.098"), parse_keep(None)
    (64, 0.098, None)
    """
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise InvalidInputError(
            f"--keep {text!r} is neither a count such as 64 nor a ratio such as 0.1"
        ) from None


def parse_image_size(text: str | None) -> tuple[int, int] | None:
    """Return (height, width) of `HEIGHTxWIDTH`.

    >>> parse_image_size("480x640")
    (480, 640)
    """
    if text is None:
        return None
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise InvalidInputError(f"--image-size {text!r} is not HEIGHTxWIDTH, such as 480x640")
    return int(height), int(width)


def split(text: str | None) -> list[str]:
    """Return the parts of a comma-separated list, none of them empty."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def parse_counts(name: str, text: str) -> list[int]:
    """Return whole numbers of `1,16,64` and of ranges `START:STOP:STEP`, STOP included.

    >>> parse_counts("--visual-tokens", "1,64:256:64")
    [1, 64, 128, 192, 256]
    """
    counts: list[int] = []
    for part in split(text):
        bounds = part.split(":")
        if not all(bound.isdecimal() for bound in bounds) or len(bounds) > 3:
            raise InvalidInputError(
                f"{name} {part!r} is neither a whole number nor a range START:STOP[:STEP]"
            )
        numbers = [int(bound) for bound in bounds]
        if len(numbers) == 1:
            counts += numbers
            continue
        step = numbers[2] if len(numbers) == 3 else 1
        if step < 1 or numbers[1] < numbers[0]:
            raise InvalidInputError(
                f"{name} {part!r} is an empty range; give START <= STOP, STEP >= 1"
            )
        span = range(numbers[0], numbers[1] + 1, step)
        # Checked before the list is built: a slip of the keyboard must not take all the memory.
        if len(span) > MOST_COUNTS:
            raise InvalidInputError(
                f"{name} {part!r} names {len(span)} numbers; at most {MOST_COUNTS} go into one option"
            )
        counts += span
    if not counts:
        raise InvalidInputError(f"{name} {text!r} names no number")
    return counts
