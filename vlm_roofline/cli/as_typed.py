"""Errors in the words of a command line: its options in place of arguments, in the options' units."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What one of an option's unit, the last word of its name, is in that of its argument.
UNITS = {"us": 1e-6, "ms": 1e-3, "gb": 1e9}
_NUMBER = r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w.])"


def unit_of(option: str) -> float:
    """Return what one of an option's unit is in that of its argument.

    >>> unit_of("--latency-ms"), unit_of("--rate")
    (0.001, 1.0)
    """
    return UNITS.get(option.rpartition("-")[2], 1.0)


def as_typed(text: str, command: Any, words: Sequence[str]) -> str:
    """Return an error that names arguments as the options of the command that was called.

    An argument of one word may be any word of a sentence; it is taken for one where it begins the error
    and its option was typed. A value stands as it was typed.

    Args:
        text: the error.
        command: the command, whose parameters have the names of the arguments.
        words: what was typed.
    """
    options = {each.name: each.opts[0] for each in command.params if each.opts[0].startswith("--")}

    def option(word: re.Match[str]) -> str:
        found = options.get(word[0], word[0])
        is_name = "_" in word[0] or (word.start() == 0 and _values(found, words))
        return found if is_name else word[0]

    # What is listed are values, which may be called as arguments are.
    text, *listed = re.split(r"(?=\b[Tt]here is: )", text, maxsplit=1)
    text = "".join([re.sub(r"(?<![\w'\"./-])\w+(?![\w'\"./])", option, text), *listed])
    said = re.fullmatch(r"(--[\w-]+)( must be .+?), not ([^';]+)(;.*)?", text)
    if said is None:
        return text
    name, wanted, given, hint = said.groups(default="")
    given = _in_unit(given, unit_of(name))
    # Of several values the one that is refused is told.
    if len(typed := _values(name, words)) == 1 and "," not in typed[0]:
        (given,) = typed
    return f"{name}{_in_unit(wanted, unit_of(name))}, not {given}{hint}"


def _values(option: str, words: Sequence[str]) -> list[str]:
    """Return what was typed for an option.

    >>> _values("--keep", ["estimate", "--keep", "64", "--keep=50%"])
    ['64', '50%']
    """
    after = [value for word, value in pairwise(words) if word == option]
    return after + [word[len(option) + 1 :] for word in words if word.startswith(f"{option}=")]


def _in_unit(text: str, unit: float) -> str:
    """Return a text with its numbers in a unit.

    >>> _in_unit("a number from 0 to 0.01", 1e-6)
    'a number from 0 to 10000'
    """
    return (
        re.sub(_NUMBER, lambda number: f"{float(number[0]) / unit:.12g}", text)
        if unit != 1
        else text
    )
