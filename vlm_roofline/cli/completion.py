"""Names that the shell completes: devices, models, methods, precisions, plans, calibrations.

A shell calls the program at every press of the key, so nothing here reads a spec, a config or a method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def _devices() -> Iterable[str]:
    from hardware_specs.names import USUAL
    from hardware_specs.registry import list_hardware

    ids = list_hardware()
    return dict.fromkeys((*ids, *USUAL, *(name.partition("-")[2] for name in ids)))


def _models() -> Iterable[str]:
    from costmodel.models.registry import list_models

    return list_models()


def _methods() -> Iterable[str]:
    from costmodel.methods.registry import list_methods

    return ("none", *list_methods())


def _precisions() -> Iterable[str]:
    from costmodel.precision.names import list_precisions

    return ("auto", *list_precisions())


def _plans() -> Iterable[str]:
    from costmodel.plans import list_plans

    return list_plans()


NAMES: dict[str, Callable[[], Iterable[str]]] = {
    "model": _models,
    "hardware": _devices,
    "precision": _precisions,
    "method": _methods,
    "execution": _plans,
}


def completes(argument: str) -> Callable[[str], list[str]] | None:
    """Return what completes an argument's text, or None for one that no list of names has.

    The last of several names joined by commas is completed.

    >>> completes("method")("none,div"), completes("keep")
    (['none,divprune'], None)
    """
    names = NAMES.get(argument)
    if names is None:
        return None

    def complete(incomplete: str) -> list[str]:
        before, comma, begun = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in names() if name.startswith(begun.lower())]

    return complete
