"""Findings that are known and not mended yet: one line each, to be removed by the mending.

A door's fuzz passes over these causes and over no other. `tests/robustness/test_known_findings.py`
reproduces each and expects it to fail, strictly: once it is mended, the test asks for the line to go.
"""

from __future__ import annotations

import json
import re
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from costmodel import Calibration, fit_calibration
from profiling import load_measurements, reconcile

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


def _deep_calibration(folder: Path) -> None:
    path = folder / "deep.json"
    path.write_text("[" * 100_000)
    Calibration.load(path)


def _deep_record(folder: Path) -> None:
    (folder / "deep.json").write_text("[" * 100_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load_measurements(folder)


def _text_as_memory(folder: Path) -> None:
    from fuzzing.doors_files import records

    record = json.loads(json.dumps(records()[0]))
    record["environment"]["device_memory_bytes"] = "much"
    (folder / "record.json").write_text(json.dumps(record))
    reconcile(folder)


def _long_cell(folder: Path) -> None:
    path = folder / "ops.csv"
    path.write_text(f"dtype,m,n,k,time_s\nbf16,{'9' * 400},1,1,1\n")
    fit_calibration(str(path), A100)


KNOWN: tuple[Known, ...] = (
    Known(
        "deep calibrations",
        ("calibration",),
        r"(RecursionError|ValueError) in costmodel/calibration/file.py:.*",
        "JSON nested too deeply, or with a number of over 4300 digits; the one reader of files bounds both",
        _deep_calibration,
    ),
    Known(
        "deep records",
        ("records",),
        r"RecursionError in profiling/.*",
        "JSON nested too deeply in one file ends the reading of its whole folder",
        _deep_record,
    ),
    Known(
        "records that are believed",
        ("records",),
        r"TypeError in hardware_specs/matching.py:.*|AssertionError in outside",
        "a record is not checked beyond its types: text as a memory size, times whose sum is infinite",
        _text_as_memory,
    ),
    Known(
        "long cells",
        ("op tables",),
        r"(OverflowError|ArrowException) in costmodel/calibration/tables.py:.*",
        "a whole number of 400 digits, or bytes that are no UTF-8, in a table of ops",
        _long_cell,
    ),
)

#: Tests of `tests/robustness` that fail for a known reason: node id -> what is wrong.
FAILING: dict[str, str] = {
    "test_outputs.py::test_a_full_disk_leaves_the_old_file[frontier]": "the frontier's picture is written "
    "straight to its name",
    "test_outputs.py::test_a_campaign_leaves_the_partial_files_of_others": "a campaign removes every partial "
    "file of its folder, a running sweep's too",
    "test_outputs.py::test_a_killed_sweep_leaves_nothing_for_long": "a killed sweep's partial file stays",
    **{f"test_known_findings.py::test_is_mended[{each.name}]": each.what for each in KNOWN},
}
