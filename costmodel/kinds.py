"""What the value of an argument may be: its kind, its range, and one clear error for everything else.

>>> Count(1).check("batch_size", 8)
8
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from numbers import Integral, Real
from os import PathLike, fspath
from typing import Any, Protocol

from costmodel.quantities import MOST_TOKENS
from hardware_specs.errors import InvalidInputError, UnknownNameError
from hardware_specs.showing import shown

#: Seconds or bytes beyond which a budget is none; infinity is given as None.
MOST_BUDGET = 1e30
#: No name and no path of a file is longer.
_LONGEST_NAME = 4096


def refused(name: str, wanted: str, given: object) -> InvalidInputError:
    """Return the error of an argument of the wrong kind or out of its range.

    >>> str(refused("layer", "a whole number", [2, 3]))
    'layer must be a whole number, not [2, 3]; sweep takes lists'
    """
    several = isinstance(given, (list, tuple, set, range)) or hasattr(given, "__array__")
    hint = "; sweep takes lists" if several else ""
    return InvalidInputError(f"{name} must be {wanted}, not {shown(given)}{hint}")


def check_count(name: str, value: object, least: int) -> int:
    """Return `value` as an int; raise unless it is a whole number in [`least`, `MOST_TOKENS`].

    >>> check_count("batch_size", 0, 1)
    Traceback (most recent call last):
    hardware_specs.errors.InvalidInputError: batch_size must be a whole number from 1 to \
100000000, not 0
    """
    if type(value) is int and least <= value <= MOST_TOKENS:
        return value
    # numpy's integers are Integral as well, but overflow; Python's do not.
    if isinstance(value, Integral) and not isinstance(value, bool):
        count = int(value)
        if least <= count <= MOST_TOKENS:
            return count
    raise refused(name, f"a whole number from {least} to {MOST_TOKENS}", value)


def check_budget(name: str, budget: object) -> None:
    """Raise unless a budget is None or a finite number above 0.

    >>> check_budget("latency_s", True)
    Traceback (most recent call last):
    hardware_specs.errors.InvalidInputError: latency_s must be a finite number above 0, not True
    """
    if budget is None:
        return
    # Compared as it is: a whole number of 400 digits is no float.
    number = isinstance(budget, Real) and not isinstance(budget, bool)
    if number and 0 < budget < MOST_BUDGET:  # type: ignore[operator]
        return
    raise refused(name, "a finite number above 0", budget)


class Kind(Protocol):
    """What an argument may be."""

    def check(self, name: str, value: Any) -> Any:
        """Return the value in its plain type, or raise `InvalidInputError`."""


@dataclass(frozen=True, slots=True)
class Count:
    """A whole number from `least` to `MOST_TOKENS`."""

    least: int

    def check(self, name: str, value: Any) -> int:
        """Return a Python int."""
        return check_count(name, value, self.least)


@dataclass(frozen=True, slots=True)
class Bytes:
    """A number of bytes, 0 or more, kept as a whole number.

    >>> Bytes().check("memory_margin_bytes", 0.5e9)
    500000000
    """

    def check(self, name: str, value: Any) -> int:
        """Return a Python int."""
        number = isinstance(value, Real) and not isinstance(value, bool)
        if number and 0 <= value < MOST_BUDGET:
            return int(value)
        raise refused(name, "a finite number of bytes from 0", value)


@dataclass(frozen=True, slots=True)
class Keep:
    """What a method keeps: a count (int) or a ratio (float in (0, 1]).

    >>> Keep().check("keep", 0.098), Keep().check("keep", 64)
    (0.098, 64)
    """

    def check(self, name: str, value: Any) -> int | float:  # noqa: ARG002 - as every kind
        """Return an int or a float: 1 is one token, 1.0 is all of them."""
        from costmodel.methods.keep import check_keep

        return check_keep(value)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    known: tuple[str, ...]

    def check(self, name: str, value: Any) -> str:
        """Return the word."""
        if isinstance(value, str) and value.lower() in self.known:
            return value.lower()
        error = UnknownNameError(value, self.known, name)
        near = f"; did you mean {' or '.join(error.near_matches)}" if error.near_matches else ""
        raise InvalidInputError(
            f"{name}={shown(value)} is unknown{near}; there is: {', '.join(self.known)}"
        )


def _is_pair(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2


@dataclass(frozen=True, slots=True)
class Size:
    """An image's (height, width) in pixels, or one of them for each image."""

    def check(self, name: str, value: Any) -> Any:
        """Return two Python ints, or a tuple of such pairs; a text says them as `read_size` reads it."""
        if isinstance(value, str):
            from costmodel.models.model import read_size

            value = read_size(value)
        if isinstance(value, (tuple, list)) and value and all(map(_is_pair, value)):
            return tuple(self.check(name, size) for size in value)
        if _is_pair(value):
            height, width = value
            return check_count(name, height, 1), check_count(name, width, 1)
        raise InvalidInputError(
            f"{name} must be (height, width) in pixels, such as (480, 640), not {shown(value)}"
        )


@dataclass(frozen=True, slots=True)
class Schedule:
    """Visual tokens of every language-model layer."""

    def check(self, name: str, value: Any) -> tuple[int, ...]:
        """Return Python ints, one per layer."""
        if isinstance(value, (list, tuple, range)) or getattr(value, "ndim", 0) == 1:
            return tuple(
                check_count(f"{name}, layer {layer},", tokens, 0)
                for layer, tokens in enumerate(value)
            )
        raise refused(name, "a list of whole numbers, one per language-model layer", value)


@dataclass(frozen=True, slots=True)
class Named:
    """A name, which its registry knows or refuses, or an object.

    Attributes:
        wanted: what it may be, in words.
        others: further types.
        home: module and class of the objects; imported only when no name is given.
        for_none: the word that stands for None, which is a value then.
    """

    wanted: str
    others: tuple[type, ...] = ()
    home: str | None = None
    for_none: str | None = None

    def check(self, name: str, value: Any) -> Any:
        """Return the value, or None for the word that stands for it."""
        if isinstance(value, str) and value != self.for_none:
            if len(value) <= _LONGEST_NAME:
                return value
        elif value is None or isinstance(value, str):
            if self.for_none is not None:
                return None
        elif isinstance(value, PathLike):
            if isinstance(value, self.others) and len(fspath(value)) <= _LONGEST_NAME:
                return value
        elif isinstance(value, self.others):
            return value
        elif self.home is not None:
            module, _, kind = self.home.rpartition(".")
            if isinstance(value, getattr(import_module(module), kind)):
                return value
        raise refused(name, self.wanted, value)


@dataclass(frozen=True, slots=True)
class Model(Named):
    """A model: a name or an object, or a config in memory, which becomes the model it describes."""

    def check(self, name: str, value: Any) -> Any:
        """Return the name, or the model."""
        if isinstance(value, str):
            return Named.check(self, name, value)
        from costmodel.models.registry import held_config

        held = held_config(value)
        if held is None and not isinstance(value, (str, PathLike)):
            held = value
        return Named.check(self, name, value if held is None else held)


@dataclass(frozen=True, slots=True)
class Amount:
    """A finite number from 0 to `most`, given on the command line in a unit of its own.

    Attributes:
        most: the largest value that is no slip of the keyboard.
        suffix: the unit on the command line, in place of the name's own.

    >>> Amount(1e-2, "us").check("host_s", 17e-6)
    1.7e-05
    """

    most: float
    suffix: str

    def check(self, name: str, value: Any) -> float:
        """Return a float."""
        number = isinstance(value, Real) and not isinstance(value, bool)
        if number and 0 <= value <= self.most:
            return float(value)
        raise refused(name, f"a number from 0 to {self.most:g}", value)
