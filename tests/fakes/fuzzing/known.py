"""Findings that are known and not mended yet: one line each, to be removed by the mending.

A door's fuzz passes over these causes and over no other. `tests/robustness/test_known_findings.py`
reproduces each and expects it to fail, strictly: once it is mended, the test asks for the line to go.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Known(NamedTuple):
    """A finding.

    Attributes:
        name: of the finding.
        doors: the doors it shows at.
        cause: a pattern of the causes that the fuzz prints.
        what: what is wrong.
        reproduce: raises something else than the project's own error while the finding stands.
    """

    name: str
    doors: tuple[str, ...]
    cause: str
    what: str
    reproduce: Callable[[Path], Any]


def is_known(door: str, cause: str) -> bool:
    return any(door in each.doors and re.fullmatch(each.cause, cause) for each in KNOWN)


KNOWN: tuple[Known, ...] = ()

#: Tests of `tests/robustness` that fail for a known reason: node id -> what is wrong.
FAILING: dict[str, str] = {
    **{f"test_known_findings.py::test_is_mended[{each.name}]": each.what for each in KNOWN},
}
