"""The registry of reproducible tables: a paper of `papers`, or a module in `tables` of its name."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, cast

from costmodel.reproduce.papers import PAPERS
from hardware_specs.errors import UnknownNameError

if TYPE_CHECKING:
    from types import ModuleType

    from costmodel.reproduce.reproduction import Reproduction


@cache
def _modules() -> dict[str, str]:
    """Return table name -> module name; `prumerge_table2.py` is `prumerge-table2`."""
    from costmodel.reproduce import tables

    return {
        module.name.replace("_", "-"): f"{tables.__name__}.{module.name}"
        for module in iter_modules(tables.__path__)
    }


def list_tables() -> tuple[str, ...]:
    """Name the tables that can be reproduced, in alphabetical order.

    >>> "prumerge-table2" in list_tables()
    True
    """
    return tuple(sorted({*PAPERS, *_modules()}))


def describe_tables() -> dict[str, str]:
    """Return each table's name with what it is, in one line.

    >>> describe_tables()["flops-ladder"]
    'LLaVA-1.5-7B at 576 visual tokens under every way of counting'
    """
    return {
        name: PAPERS[name].title if name in PAPERS else str(_load(name).TITLE)
        for name in list_tables()
    }


def reproduce(name: str) -> Reproduction:
    """Recompute a published table.

    Raises:
        UnknownNameError: no such table; the message names those there are.

    >>> reproduce("prumerge-table2").summary["printed_digits_reproduced"]
    31
    """
    if name in PAPERS:
        from costmodel.reproduce.paper_table import build_paper_table

        return build_paper_table(PAPERS[name])
    return cast("Reproduction", _load(name).build())


def _load(name: str) -> ModuleType:
    module = _modules().get(name)
    if module is None:
        raise UnknownNameError(name, list_tables(), "table")
    return import_module(module)
