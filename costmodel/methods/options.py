"""Options of a method: a default, a meaning, and a parser that refuses what does not fit.

A method's module declares each option once, as a constant, and its value is read through that constant,
so that it has a type: `LAYERS.of(method)` is a tuple of integers to the type checker too. A parser
takes whatever was given, a command line's text included, and returns the value or raises TypeError or
ValueError; `get_method` turns that into one message that says what was expected.
"""

from __future__ import annotations

import json
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, cast

T = TypeVar("T")


class HasOptions(Protocol):
    """A method, or the input of its plan: the chosen value of every option, by name."""

    @property
    def options(self) -> Mapping[str, object]:
        """Every option's value."""


@dataclass(frozen=True, slots=True)
class Values(Generic[T]):
    """The values that an option takes.

    Attributes:
        parse: turns a given value into the one used, or raises TypeError or ValueError.
        expects: what is accepted, in words.
    """

    parse: Callable[[object], T]
    expects: str


@dataclass(frozen=True, slots=True)
class Option(Generic[T]):
    """One option of a method.

    Attributes:
        name: its keyword in `get_method`.
        default: value when it is not given.
        values: those it takes.
        meaning: what it does, in words.
        for_keep: whether a value of its own decides how many tokens are left, in the place of `keep`.
    """

    name: str
    default: T
    values: Values[T]
    meaning: str
    for_keep: bool = False

    @property
    def expects(self) -> str:
        """What is accepted, in words."""
        return self.values.expects

    def of(self, chosen: HasOptions) -> T:
        """Return this option's value in a method or in the input of its plan."""
        # `get_method` put every value through `parse`.
        return cast("T", chosen.options[self.name])


def _integer(value: object, minimum: int) -> int:
    if isinstance(value, str):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < minimum:
        raise ValueError(value)
    return int(value)


def whole(minimum: int) -> Values[int]:
    """An integer of at least `minimum`, or its text.

    >>> whole(0).parse("7")
    7
    """
    return Values(lambda value: _integer(value, minimum), f"an integer >= {minimum}")


def fraction(low: float, high: float, *, above: bool = False) -> Values[float]:
    """A number in [low, high], or its text; `above` leaves low itself out.

    >>> fraction(0.0, 1.0).parse("0.5"), fraction(0.0, 1.0, above=True).expects
    (0.5, 'a number in (0, 1]')
    """

    def parse(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (str, numbers.Real)):
            raise TypeError(value)
        number = float(value)
        if not low <= number <= high or (above and number == low):
            raise ValueError(value)
        return number

    return Values(parse, f"a number in {'(' if above else '['}{low:g}, {high:g}]")


def flag(value: object) -> bool:
    """True or False, or their text.

    >>> flag("false")
    False
    """
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if isinstance(value, bool):
        return value
    raise ValueError(value)


def layer_indices(value: object) -> tuple[int, ...]:
    """A list of integers >= 0, at least one, or its text ("3,6,9" or "[3, 6, 9]").

    >>> layer_indices("3,6,9")
    (3, 6, 9)
    """
    if isinstance(value, str):
        text = value.strip()
        value = json.loads(text if text.startswith("[") else f"[{text}]")
    if not isinstance(value, Sequence) or isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError(value)
    if not value:
        raise ValueError(value)
    return tuple(_integer(item, 0) for item in value)


def merged_tokens(value: object) -> int | tuple[int, ...]:
    """One number for every layer, or a list with one per layer.

    >>> merged_tokens(13), merged_tokens([16, 8, 0])
    (13, (16, 8, 0))
    """
    if isinstance(value, Sequence) and not (isinstance(value, str) and value.strip().isdecimal()):
        return layer_indices(value)
    return _integer(value, 0)


def grid(value: object) -> tuple[int, int]:
    """(rows, columns), or its text ("5x8").

    >>> grid("5x8")
    (5, 8)
    """
    if isinstance(value, str):
        value = value.lower().replace("x", ",")
    rows, columns = layer_indices(value)
    if rows < 1 or columns < 1:
        raise ValueError(value)
    return rows, columns


def dtype_name(value: object) -> str:
    """The name of a floating-point type of torch; a torch dtype gives its name.

    >>> dtype_name("float32")
    'float32'
    """
    name = str(value).removeprefix("torch.")
    if name not in ("float16", "bfloat16", "float32", "float64"):
        raise ValueError(value)
    return name


def choice(*names: str) -> Values[str]:
    """One of some names.

    >>> choice("set", "norm").parse("set")
    'set'
    """

    def parse(value: object) -> str:
        if value not in names:
            raise ValueError(value)
        return str(value)

    return Values(parse, " or ".join(map(repr, names)))


def path_text(value: object) -> str:
    """A file's path, as text."""
    text = str(value)
    if not text:
        raise ValueError(value)
    return text


def optional(values: Values[T]) -> Values[T | None]:
    """None as well as other values.

    >>> optional(CELLS).parse("none"), optional(CELLS).expects
    (None, '(rows, columns) or None')
    """

    def parse(value: object) -> T | None:
        if value is None or (isinstance(value, str) and value.lower() == "none"):
            return None
        return values.parse(value)

    return Values(parse, f"{values.expects} or None")


FLAG = Values(flag, "True or False")
LAYER_LIST = Values(layer_indices, "a list of layers")
MERGES = Values(merged_tokens, "an integer >= 0 or a list of them, one per layer")
CELLS = Values(grid, "(rows, columns)")
DTYPE = Values(dtype_name, "float16, bfloat16, float32, float64")
FILE = optional(Values(path_text, "a safetensors file"))
