"""The registry of conventions: name -> the module that holds it, imported when asked for."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, cast

from hardware_specs.errors import UnknownConventionError

if TYPE_CHECKING:
    from costmodel.conventions.convention import Convention

#: convention -> (module, the attribute that holds it)
_HOMES = {
    "divprune": ("divprune", "CONVENTION"),
    "fastv": ("fastv", "CONVENTION"),
    "llava-mini": ("llava_mini", "CONVENTION"),
    "llmviewer-2024-02": ("llmviewer.counting", "LLMVIEWER_2024_02"),
    "llmviewer-2024-07": ("llmviewer.counting", "LLMVIEWER_2024_07"),
    "pyramiddrop": ("pyramiddrop", "CONVENTION"),
    "shortv": ("shortv", "CONVENTION"),
    "sparsevlm": ("sparsevlm", "CONVENTION"),
}


def list_conventions() -> tuple[str, ...]:
    """Name the conventions of other people's papers and tools, in alphabetical order.

    The project's own counting (`torch`) is not among them: it is what `estimate` does without one.

    >>> list_conventions()[:3]
    ('divprune', 'fastv', 'llava-mini')
    """
    return tuple(sorted(_HOMES))


@cache
def get_convention(name: str) -> Convention:
    """Return the convention of that name.

    Raises:
        UnknownConventionError: no such convention; the message names near matches.

    >>> get_convention("fastv").default_text_tokens
    36
    """
    if name not in _HOMES:
        raise UnknownConventionError(name, ("torch", *list_conventions()))
    module, attribute = _HOMES[name]
    return cast("Convention", getattr(import_module(f"costmodel.conventions.{module}"), attribute))
