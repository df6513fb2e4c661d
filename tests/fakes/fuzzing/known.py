"""Findings that are known and not mended yet: one line each, to be removed by the mending.

A door's fuzz passes over these causes and over no other. `tests/robustness/test_known_findings.py`
reproduces each and expects it to fail, strictly: once it is mended, the test asks for the line to go.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from profiling import reconcile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

A100 = "nvidia-a100-sxm4-80gb"


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


def _text_as_memory(folder: Path) -> None:
    from fuzzing.doors_files import records

    record = json.loads(json.dumps(records()[0]))
    record["environment"]["device_memory_bytes"] = "much"
    (folder / "record.json").write_text(json.dumps(record))
    reconcile(folder)


KNOWN: tuple[Known, ...] = (
    Known(
        "records that are believed",
        ("records",),
        r"TypeError in hardware_specs/matching.py:.*|AssertionError in outside",
        "a record is not checked beyond its types: text as a memory size, times whose sum is infinite",
        _text_as_memory,
    ),
)

#: Tests of `tests/robustness` that fail for a known reason: node id -> what is wrong.
FAILING: dict[str, str] = {
    **{f"test_known_findings.py::test_is_mended[{each.name}]": each.what for each in KNOWN},
}
