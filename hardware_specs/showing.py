"""Untrusted text and values, made fit for a message or a terminal: short, and without effect.

A name, a path or a record's text may hold terminal escapes, line breaks and lone surrogates; a value
may be a list of a million numbers, an integer of more digits than Python converts, or an object whose
`repr` raises. What is shown of them is bounded and printable.
"""

from __future__ import annotations

import re
import reprlib
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

#: Longest text of one value inside a message.
SHOWN_CHARACTERS = 80
#: Longest `repr` of a result.
BRIEF_CHARACTERS = 180
#: Bits above which an integer is described, not printed: Python refuses beyond 4300 digits.
PRINTED_BITS = 256
#: Control characters but tab and newline, marks that turn the direction of text, lone surrogates.
_EFFECTS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = SHOWN_CHARACTERS


def harmless(text: str) -> str:
    r"""Return a text whose control characters and terminal escapes are written out; tabs and newlines stay.

    >>> harmless("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return _EFFECTS.sub(lambda found: repr(found[0])[1:-1], text)


def one_line(error: BaseException | str, most: int = 2000) -> str:
    r"""Return an error's message as one harmless line of at most `most` characters.

    >>> one_line("first\n  second", most=9)
    'first ...'
    """
    text = harmless(" ".join(str(error).split()))
    return text if len(text) <= most else f"{text[: most - 3]}..."


def shown(value: object) -> str:
    """Return a value's `repr` as a message can carry it, whatever its size and its `repr`.

    >>> shown("llava"), shown(10**9), shown(10**5000)
    ("'llava'", '1000000000', 'a whole number of about 5001 digits')
    """
    if isinstance(value, int) and value.bit_length() > PRINTED_BITS:
        return f"a whole number of about {int(value.bit_length() * 0.30103) + 1} digits"
    try:
        text = _SHORT.repr(value)
    except ValueError:  # a list with an integer of more digits than Python converts
        text = f"a {type(value).__name__}"
    text = harmless(text)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 3]}..."


def brief(value: Any) -> str:
    """Return a short `repr` of a dataclass or named tuple: its fields as far as they fit and are set.

    A field that has its default, or None, is left out; sequences and mappings are counted; floats have four
    digits. It stands in a class as `__repr__ = brief`.

    >>> from typing import NamedTuple
    >>> class Point(NamedTuple):
    ...     time_s: float
    ...     samples: tuple[float, ...]
    ...     name: str = "none"
    >>> brief(Point(0.0123456789, (1.0, 2.0)))
    'Point(time_s=0.01235, samples=2 values)'
    """
    if is_dataclass(value):
        defaults = {
            each.name: each.default_factory()
            if each.default_factory is not MISSING
            else each.default
            for each in fields(value)
            if each.repr and not each.name.startswith("_")
        }
    else:
        defaults = {name: value._field_defaults.get(name, MISSING) for name in value._fields}
    name, parts = type(value).__name__, []
    room = BRIEF_CHARACTERS - len(name)
    for field, default in defaults.items():
        held = getattr(value, field)
        if held is None or (type(held) is type(default) and held == default):
            continue
        part = f"{field}={_brief(held)}"
        room -= len(part) + 2
        if room < 0:
            parts.append("...")
            break
        parts.append(part)
    return f"{name}({', '.join(parts)})"


def _brief(held: Any) -> str:
    if isinstance(held, float):
        return f"{held:.4g}"
    if is_dataclass(held) or hasattr(held, "_fields"):
        named = getattr(held, "id", None) or getattr(held, "name", None)
        return type(held).__name__ if named is None else shown(named)
    if hasattr(held, "__len__") and not isinstance(held, str):
        return f"{len(held)} values"
    return shown(held)
