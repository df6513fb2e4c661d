"""A method with its settings as one line of text: `fastv(keep=0.25, layer=3, variant=paper)`.

Records, tables and command lines carry methods as text. Whatever takes a method's name takes such a line
too, and a plain name is the shortest of them. Lists are written in brackets; text with a comma, bracket or
quote in it is written in double quotes, as in JSON.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Text in double quotes, as JSON writes it.
QUOTED = r'"(?:[^"\\]|\\.)*"'
_VALUE = QUOTED + r'|\[[^\]"]*\]|[^,()\[\]"=]+'
_PAIR = rf"(\w+)=({_VALUE})"
_PAIRS = re.compile(rf"{_PAIR}(?:, *{_PAIR})*")
_PLAIN = re.compile(r'[^,()\[\]"=]+')


def spell(name: str, settings: Mapping[str, object]) -> str:
    """Return a method and its settings as one line.

    >>> spell("evit", {"keep": 0.5, "layers": (2, 5), "fuse": False})
    'evit(keep=0.5, layers=[2,5], fuse=false)'
    """
    if not settings:
        return name
    return f"{name}({', '.join(f'{key}={_written(value)}' for key, value in settings.items())})"


def read_spelling(text: str) -> tuple[str, dict[str, object]]:
    """Return the name and the settings in a line; options stay text, which their parsers read.

    Raises:
        InvalidInputError: a bracket that is not closed, a setting that is not NAME=VALUE, or one twice.

    >>> read_spelling("evit(keep=0.5, layers=[2,5])")
    ('evit', {'keep': 0.5, 'layers': '[2,5]'})
    """
    name, bracket, rest = text.partition("(")
    if not bracket:
        return name, {}
    inner = rest.removesuffix(")")
    if inner == rest or not _PAIRS.fullmatch(inner):
        raise InvalidInputError(
            f"{text!r} is no method with its settings; write it as {name}(name=value, name=[1,2])"
        )
    pairs = re.findall(_PAIR, inner)
    settings = {key: _read(key, value) for key, value in pairs}
    if len(settings) < len(pairs):
        raise InvalidInputError(f"{text!r} gives one setting twice; give it once")
    return name, settings


def agreed(method: str, name: str, own: Any, beside: Any) -> Any:
    """Return a value given in the method or beside it; 1 (one token) and 1.0 (all of them) are not the same.

    Raises:
        InvalidInputError: two values.
    """
    if own is None or beside is None:
        return beside if own is None else own
    if type(own) is not type(beside) or own != beside:
        raise InvalidInputError(
            f"{name}={beside!r} was given, and {method} with {name}={own!r}; give it once"
        )
    return own


def _written(value: object) -> str:
    if isinstance(value, (tuple, list)):
        return f"[{','.join(map(str, value))}]"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _read(key: str, text: str) -> object:
    if key in ("keep", "layer"):
        try:
            return float(text) if re.search(r"[.e]", text) else int(text)
        except ValueError:
            raise InvalidInputError(f"{key}={text} is no number") from None
    if not text.startswith('"'):
        return text
    try:
        return json.loads(text)
    except ValueError:
        raise InvalidInputError(f"{key}={text} is no text in quotes, as JSON writes it") from None
