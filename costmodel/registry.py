"""Registries of what ships and of what others add: names to objects, imported when first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from hardware_specs.errors import InvalidInputError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")


class Registry(Generic[T]):
    """Objects of one kind by name.

    What ships is a name and the module that keeps it, one line each. Others add theirs with
    `register`, or let an installed package name them in an entry point group, which is read when a
    name is unknown or all are listed.

    Args:
        kind: what the objects are, for messages.
        modules: shipped name -> module.
        attribute: the object's name in its module.
        group: the entry point group of other packages, or empty.

    >>> letters = Registry("letter", {}, "LETTER")
    >>> letters.register("a", "A"); letters.get("a")
    'A'
    >>> letters.register("a", "B")
    Traceback (most recent call last):
    hardware_specs.errors.InvalidInputError: there is a letter 'a' already; choose another name
    """

    def __init__(
        self, kind: str, modules: Mapping[str, str], attribute: str, group: str = ""
    ) -> None:
        self.kind = kind
        self._modules = dict(modules)
        self._attribute = attribute
        self._group = group
        self._found: dict[str, T] = {}
        self._entry_points: dict[str, Any] | None = None

    def names(self) -> tuple[str, ...]:
        """Name all there are: the shipped ones, then the others'."""
        return tuple(dict.fromkeys((*self._modules, *self._found, *self._others())))

    def __contains__(self, name: object) -> bool:
        """Tell whether there is an object of that name."""
        return name in self._modules or name in self._found or name in self._others()

    def get(self, name: str) -> T:
        """Return the object called `name`.

        Raises:
            UnknownNameError: there is none; the message has near matches.
        """
        known = isinstance(name, str)
        found = self._found.get(name) if known else None
        if found is None:
            if not known or name not in self:
                raise UnknownNameError(name, self.names(), self.kind)
            if name in self._modules:
                found = getattr(import_module(self._modules[name]), self._attribute)
            else:
                found = self._others()[name].load()
            self._found[name] = found
        return found

    def register(self, name: str, value: T) -> None:
        """Add an object.

        Raises:
            InvalidInputError: the name is taken.
        """
        if name in self:
            raise InvalidInputError(f"there is a {self.kind} {name!r} already; choose another name")
        self._found[name] = value

    def _others(self) -> dict[str, Any]:
        """Entry points of installed packages; a shipped name is never replaced by one."""
        if self._entry_points is None:
            from importlib.metadata import entry_points

            found = entry_points(group=self._group) if self._group else ()
            self._entry_points = {e.name: e for e in found if e.name not in self._modules}
        return self._entry_points
