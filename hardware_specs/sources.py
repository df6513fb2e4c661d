"""Sources of the numbers, meanings of the evidence codes, and differing figures of other lists."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_DATA = Path(__file__).parent / "data"

#: Evidence code -> what was done to get the number.
EVIDENCE = {
    "T": "vendor text, or a verbatim copy of it, was read",
    "L": "two or more independent lists agree",
    "l": "one list gives it",
    "M": "quoted from memory of the named vendor document, which was not opened",
    "A": "derived: units x op per clock and unit x clock, or bus width x data rate",
    "3": "third parties only; the vendor does not publish it",
    "measured": "measured on this machine",
    "user": "stated by the author of the file",
}

#: What `+A` at the end of a code adds.
ARITHMETIC = "units x op per clock x clock gives the same within 2 %"

#: Codes of numbers to check before building on them; every display marks them.
WEAK_EVIDENCE = frozenset({"M", "3"})


@dataclass(frozen=True, slots=True)
class Source:
    """A document that device files name as the source of a number.

    Attributes:
        key: the name device files use.
        document: title, number and date.
        url: where it is; empty where no address is known.
        found_in: where the address, or the figures, came from.
    """

    key: str
    document: str
    url: str = ""
    found_in: str = ""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A figure that another public list prints and that differs from the one here.

    Attributes:
        about: the device as that list names it.
        field: which of its numbers.
        list: the list, with its version.
        theirs: what it prints, in its own units.
        right: what is right.
        why: how the difference came about; empty where that is not known.
        devices: ids concerned.
    """

    about: str
    field: str
    list: str
    theirs: str
    right: str
    why: str = ""
    devices: tuple[str, ...] = ()


@cache
def list_sources() -> Mapping[str, Source]:
    """Return the documents by key: data sheets and lists, and the benchmarks behind measured rates.

    >>> list_sources()["a100_ds"].document
    'NVIDIA A100 datasheet 1758950 r4 (2021)'
    """
    from hardware_specs.files.reading import read_yaml

    content = read_yaml(_DATA / "sources.yaml")
    sources = {
        key: Source(key, entry["doc"], entry.get("url", ""), entry.get("found_in", ""))
        for key, entry in content["documents"].items()
    }
    sources |= {key: Source(key, text) for key, text in content["measured_sources"].items()}
    return MappingProxyType(sources)


def list_disagreements(hardware_id: str | None = None) -> tuple[Disagreement, ...]:
    """Return the figures for which other public lists differ, all of them or those of one device.

    >>> [d.theirs for d in list_disagreements("nvidia-gh200-96gb")]
    ['1979 (bf16)']
    """
    rows = _all_disagreements()
    if hardware_id is None:
        return rows
    return tuple(row for row in rows if hardware_id in row.devices)


@cache
def _all_disagreements() -> tuple[Disagreement, ...]:
    from hardware_specs.files.reading import read_yaml

    rows = read_yaml(_DATA / "disagreements.yaml")["disagreements"]
    return tuple(Disagreement(**{**row, "devices": tuple(row.get("devices", ()))}) for row in rows)


def explain_evidence(code: str) -> str:
    """Return in words how a number with this evidence code was obtained.

    >>> explain_evidence("l+A")
    'one list gives it; units x op per clock x clock gives the same within 2 %'
    """
    base, _, suffix = code.partition("+")
    return EVIDENCE[base] + (f"; {ARITHMETIC}" if suffix else "")


def is_weak(code: str) -> bool:
    """Tell whether a number was quoted from memory or comes from third parties only.

    >>> is_weak("M+A"), is_weak("3"), is_weak("T+A")
    (True, True, False)
    """
    return code.partition("+")[0] in WEAK_EVIDENCE
