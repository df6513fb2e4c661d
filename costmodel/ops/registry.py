"""Names for op formulas; registering a name twice is an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from hardware_specs.errors import UnknownOpError

if TYPE_CHECKING:
    from collections.abc import Callable

    from costmodel.quantities import OpCost

F = TypeVar("F", bound="Callable[..., OpCost]")

_FORMULAS: dict[str, Callable[..., OpCost]] = {}


def formula(name: str) -> Callable[[F], F]:
    """Register the decorated function as the formula `name`."""

    def register(function: F) -> F:
        if name in _FORMULAS:
            raise ValueError(f"the op formula {name!r} is registered twice")
        _FORMULAS[name] = function
        return function

    return register


def list_ops() -> tuple[str, ...]:
    """Name the op formulas.

    >>> "linear" in list_ops()
    True
    """
    return tuple(sorted(_FORMULAS))


def get_op(name: str) -> Callable[..., Any]:
    """Return the formula called `name`.

    Raises:
        UnknownOpError: there is no such formula.
    """
    try:
        return _FORMULAS[name]
    except KeyError:
        raise UnknownOpError(name, list_ops()) from None
