"""JSON as data only: bounded depth and digits, keys once, and no number that is none."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from hardware_specs.errors import InvalidFileError

#: Device files nest four levels deep, records six; deeper documents only exhaust the stack.
MAX_DEPTH = 50

#: Longer whole numbers fit into no float, and Python reads them in quadratic time.
MAX_DIGITS = 100


def parse_json(text: str | bytes, *, infinite: bool = False, repeated: bool = False) -> Any:
    """Parse one JSON document as plain data.

    `infinite` accepts `NaN` and `Infinity`, which are no JSON but stand in some model configs; `repeated`
    lets the last of a repeated key stand, as traces of other programs need.

    Raises:
        InvalidFileError: it is no JSON, repeats a key, nests deeper than `MAX_DEPTH`, or holds a
            number that is not finite or has more than `MAX_DIGITS` digits.

    >>> parse_json('{"tdp_w": 400}')
    {'tdp_w': 400}
    >>> parse_json('{"tdp_w": 400, "tdp_w": 300}')
    Traceback (most recent call last):
        ...
    hardware_specs.errors.InvalidFileError: the key 'tdp_w' appears twice
    """
    try:
        document = json.loads(
            text,
            parse_int=whole_number,
            parse_float=float if infinite else _finite,
            parse_constant=float if infinite else _refuse,
            object_pairs_hook=None if repeated else _once,
        )
    except InvalidFileError:
        raise
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidFileError(f"{where}: not valid JSON: {error.msg}") from None
    except UnicodeDecodeError:
        raise InvalidFileError("no UTF-8 text") from None
    except RecursionError:
        raise InvalidFileError(f"more than {MAX_DEPTH} levels deep") from None
    level = [document]
    for _ in range(MAX_DEPTH + 1):
        level = [
            item
            for value in level
            if isinstance(value, (dict, list))
            for item in (value.values() if isinstance(value, dict) else value)
            if isinstance(item, (dict, list))
        ]
        if not level:
            return document
    raise InvalidFileError(f"more than {MAX_DEPTH} levels deep")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        double = next(key for key in keys if keys.count(key) > 1)
        raise InvalidFileError(f"the key {double[:60]!r} appears twice")
    return found


def whole_number(digits: str) -> int:
    """Return an integer of at most `MAX_DIGITS` digits.

    Raises:
        InvalidFileError: it has more.
    """
    if len(digits) > MAX_DIGITS:
        raise InvalidFileError(f"a number of more than {MAX_DIGITS} digits")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise InvalidFileError(f"the number {digits[:30]} is out of range")
    return number


def _refuse(name: str) -> NoReturn:
    raise InvalidFileError(f"{name} is not a number")
