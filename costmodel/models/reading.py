"""Reading a Hugging Face config.json key by key, each value checked where it is read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

from hardware_specs.errors import InvalidFileError
from hardware_specs.files.reading import read_json

if TYPE_CHECKING:
    from pathlib import Path

    from costmodel.registry import Registry

T = TypeVar("T")

#: No dimension of a model is larger.
MOST = 10_000_000
#: No number is larger; a whole number of 400 digits is no float.
LARGEST = 1e300

_MISSING: Any = object()


def read_document(path: Path) -> dict[str, Any]:
    """Return the JSON object of a config file.

    Raises:
        InvalidFileError: unreadable, no JSON, or no JSON object.
    """
    document = read_json(path, "model config", infinite=True)
    if not isinstance(document, dict):
        held = "a list" if isinstance(document, list) else _show(document)
        raise InvalidFileError(f"{path}: holds {held} where a JSON object must be")
    return document


class Section:
    """One JSON object of a config, and what of it was left to defaults.

    Args:
        values: the object.
        file: the file's name, for messages.
        path: the object's own key, for messages; empty at the top.
        defaults: values that stand in for missing keys.
        used: receives the full names of the keys that defaults stood in for.
    """

    def __init__(
        self,
        values: dict[str, Any],
        file: str,
        path: str = "",
        defaults: dict[str, Any] | None = None,
        used: list[str] | None = None,
    ) -> None:
        """Keep the object and where it stands."""
        self.values = values
        self.file = file
        self.path = path
        self.defaults = defaults or {}
        self.used = [] if used is None else used

    def __contains__(self, key: str) -> bool:
        """Tell whether the config itself has the key."""
        return key in self.values

    def key(self, key: str) -> str:
        """Return a key's full name."""
        return f"{self.path}.{key}" if self.path else key

    def fail(self, key: str, problem: str) -> InvalidFileError:
        """Return the error for a key, naming file, key and problem."""
        return InvalidFileError(f"{self.file}: {self.key(key)} {problem}")

    def whole(self, key: str, *, least: int = 1, most: int = MOST, null: bool = False) -> Any:
        """Return a whole number in [least, most]; None too where null is allowed."""
        value = self.raw(key)
        if value is None and null:
            return None
        if type(value) is not int or not least <= value <= most:
            raise self.fail(
                key, f"must be a whole number from {least} to {most}, not {_show(value)}"
            )
        return value

    def number(self, key: str) -> float:
        """Return a finite number of at least 0."""
        value = self.raw(key)
        if type(value) not in (int, float) or not 0 <= value < LARGEST:
            raise self.fail(key, f"must be a number of at least 0, not {_show(value)}")
        return float(value)

    def flag(self, key: str) -> bool:
        """Return true or false."""
        value = self.raw(key)
        if type(value) is not bool:
            raise self.fail(key, f"must be true or false, not {_show(value)}")
        return value

    def word(self, key: str, allowed: tuple[str, ...] = ()) -> str:
        """Return a string, one of `allowed` where that names any."""
        value = self.raw(key)
        if not isinstance(value, str) or not value:
            raise self.fail(key, f"must be a string, not {_show(value)}")
        if allowed and value not in allowed:
            raise self.fail(key, f"is {value!r}; this project knows {', '.join(allowed)}")
        return value

    def named(self, key: str, registry: Registry[T]) -> T:
        """Return what a string names in a registry."""
        value = self.word(key)
        if value not in registry:
            known = ", ".join(registry.names())
            raise self.fail(key, f"is {value!r}; this project knows {known}")
        return registry.get(value)

    def section(self, key: str, *, defaults: dict[str, Any] | None = None) -> Section:
        """Return the object under a key."""
        value = self.values.get(key)
        if not isinstance(value, dict):
            problem = "is missing" if key not in self.values else f"is {_show(value)}"
            raise self.fail(key, f"{problem}; it must be an object that describes that part")
        return Section(value, self.file, self.key(key), defaults, self.used)

    def raw(self, key: str) -> Any:
        """Return a value as it is, or what stands in for it."""
        if key in self.values:
            return self.values[key]
        value = self.defaults.get(key, _MISSING)
        if value is _MISSING:
            raise self.fail(key, "is missing")
        name = self.key(key)
        if name not in self.used:
            self.used.append(name)
        return value


def _show(value: Any) -> str:
    """Return a value as a message can carry it."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
