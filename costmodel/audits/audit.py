"""`audit`: contradictions, floors, and the one set of assumptions behind a published table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.audits.assumptions import TEXT_LENGTHS
from costmodel.audits.contradictions import contradictions, follows
from costmodel.audits.floors import devices_named, floors
from costmodel.audits.needs import needed_tokens
from costmodel.audits.published import published_table
from costmodel.audits.reading import read_grid
from costmodel.audits.rows import table_of
from costmodel.audits.search import COPIES, altered, search
from costmodel.audits.table import PublishedTable, parse_schedule
from costmodel.audits.tool import QUANTITIES, tool_devices, tool_search
from costmodel.kinds import refused
from costmodel.reproduce import list_tables
from hardware_specs import list_hardware
from hardware_specs.errors import InvalidInputError, UnknownHardwareError
from hardware_specs.files.reading import read_text, show_path, user_path
from hardware_specs.showing import brief

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from costmodel.audits.search import Found
    from costmodel.audits.table import Cell, Schedule

SCHEMA_VERSION = 1
EXPLAINED = "explained"
NOT_IDENTIFIED = "explained, not identified"
NOT_EXPLAINED = "not explained"
#: The share of altered copies that may do as well as an explained table.
P_VALUE = 0.01
#: Rivals in a document; the rest is counted.
MOST_RIVALS = 40


@dataclass(frozen=True, slots=True)
class Audit:
    """What a published table says, and what it does not.

    Attributes:
        name: of the table.
        verdict: `explained`, `explained, not identified` or `not explained`.
        cells: distinct informative cells: no baseline of 100 %, no ratio that follows from printed
            cells, no repeat, no schedule that is inferred or unknown.
        matched: those that the best set of assumptions prints.
        p_value: the share of altered copies of which a set prints as many; None without the test.
        copies: what altered copies reach: `mean`, `most`, how many `copies` there are, and whether the
            mean is `exact` or a bound from above.
        assumptions: the best set, quantity by quantity.
        rivals: other families that do as well.
        contradictions: what the table contradicts by itself.
        impossible: measured cells below what their work allows.
        measured: measured cells above their floor, by how much and why.
        missed: informative cells that the best set does not print, and what they would need.
        left_out: cells that are no evidence, with the reason.
        remarks: what the reader must know.
    """

    name: str
    verdict: str
    cells: int
    matched: int
    p_value: float | None
    copies: Mapping[str, Any]
    assumptions: Mapping[str, Any]
    rivals: tuple[Mapping[str, Any], ...]
    contradictions: tuple[Mapping[str, Any], ...]
    impossible: tuple[Mapping[str, Any], ...]
    measured: tuple[Mapping[str, Any], ...]
    missed: tuple[Mapping[str, Any], ...]
    left_out: tuple[Mapping[str, str], ...]
    remarks: tuple[str, ...]

    __repr__ = brief

    def to_dict(self) -> dict[str, Any]:
        """Return the document of `--json`, `schema_version` 1."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        lists = {name: list(value) for name, value in found.items() if isinstance(value, tuple)}
        return {"schema_version": SCHEMA_VERSION, **found, **lists}


def audit(
    table: str | Path | PublishedTable,
    *,
    model: str | None = None,
    hardware: str | None = None,
    text_tokens: int | None = None,
    columns: Mapping[str, str] | None = None,
    copies: int = COPIES,
    seed: int = 0,
) -> Audit:
    r"""Say how a published table was counted, as far as its digits can tell.

    Contradictions come first and need no assumption. Then one set of assumptions is searched for the
    table, the same space for all tables (docs/audit.md), and the whole search runs again on copies
    whose digits are altered by up to 3 %: `p_value` is the share of these, the table among them, of
    which some set prints as many cells.

    Args:
        table: a file (CSV, Markdown or LaTeX), its text, a name of `costmodel.reproduce.list_tables()`,
            or a table that was read.
        model: of rows that name none.
        hardware: the device of measured cells; None takes what the table says.
        text_tokens: the text length that the paper states, in tokens; None takes the table's own.
        columns: heading -> role and unit, such as `{"Cost": "flops T"}`, where a heading does not say.
        copies: altered copies; 0 leaves the null test out.
        seed: of the copies.

    Raises:
        InvalidFileError: no table that can be read, or no column that is known.
        UnknownModelError: a model that is not shipped.
        UnknownHardwareError: a device whose name says none.
        InvalidInputError: a number of copies or a text length out of range, or a column that is not there.

    >>> found = audit("method,tokens,FLOPs (T)\nVanilla,576,8.5\n", model="llava-1.5-7b", copies=0)
    >>> found.verdict, found.cells, found.matched
    ('explained, not identified', 1, 1)
    """
    numbers = {"copies": (copies, 100_000), "seed": (seed, 2**32)}
    if text_tokens is not None:
        numbers["text_tokens"] = (text_tokens, 1_000_000)
    for name, (value, most) in numbers.items():
        if type(value) is not int or not 0 <= value <= most:
            raise refused(name, f"a whole number from 0 to {most}", value)
    if hardware is not None and not (isinstance(hardware, str) and devices_named(hardware)):
        raise UnknownHardwareError(hardware, list_hardware())
    read = read_table(table, model=model, columns=columns, text_tokens=text_tokens)
    against = contradictions(read)
    suspects = {id(c) for said in against for c in said.pop("suspects", ())}
    said = hardware or " ".join(read.about.values())
    devices = tool_devices(said) if read.computed_by_tool else ()
    parts, left_out = evidence(read, tool=bool(devices))
    impossible, measured, remarks = floors(read, hardware)
    results = [_search(part, kind, read, copies, seed, devices) for kind, part in parts.items()]
    return _concluded(read, list(parts.items()), results, suspects, left_out, copies, {
        "contradictions": tuple(against), "impossible": tuple(impossible),
        "measured": tuple(measured), "remarks": (*read.remarks, *remarks),
    })  # fmt: skip


def read_table(
    table: str | Path | PublishedTable,
    *,
    model: str | None = None,
    columns: Mapping[str, str] | None = None,
    text_tokens: int | None = None,
) -> PublishedTable:
    """Return a table in any form that `audit` takes, as it is read; arguments and errors are the same."""
    if isinstance(table, str) and table in list_tables():
        table = published_table(table)
    if isinstance(table, PublishedTable):
        for name, given in {"model": model, "columns": columns}.items():
            if given:
                raise InvalidInputError(
                    f"{name} is for a file or a text; the table {table.name} says it: leave it out"
                )
        return table if text_tokens is None else replace(table, text_tokens=text_tokens)
    if not isinstance(table, (str, Path)):
        raise InvalidInputError(f"a table is a file, a text or a name, not {type(table).__name__}")
    inline = isinstance(table, str) and "\n" in table
    name = "the table" if inline else show_path(table)
    content = str(table) if inline else read_text(user_path(table), "table")
    return table_of(
        read_grid(content, name), name, model=model, columns=columns, text_tokens=text_tokens
    )


def evidence(
    table: PublishedTable, *, tool: bool = False
) -> tuple[dict[str, list[Cell]], list[dict[str, str]]]:
    """Return the distinct informative cells by what counts them, and why the others are none.

    A `tool` computed times and memory as well, at lengths that need not be stated.
    """
    seen: set[Any] = set()
    parts: dict[str, list[Cell]] = {}
    left_out = []
    for cell in table.cells:
        by_tool = tool and not cell.ratio and cell.quantity in QUANTITIES
        if not by_tool and cell.quantity not in ("flops", "kv_cache"):
            continue  # nobody computes a measured cell
        key = (cell.inputs, cell.row if cell.schedule is None else "", cell.printed, cell.scale,
               cell.base if cell.ratio else None)  # fmt: skip
        why = None
        if cell.schedule is None and not by_tool:
            why = "its tokens are not stated"
        elif cell.schedule is not None and cell.schedule.kind == "inferred" and not by_tool:
            why = "its schedule is inferred"
        elif cell.ratio and follows(cell, table):
            why = "it follows from printed cells"
        elif cell.ratio and tool:
            why = "the tool prints no ratio"
        elif key in seen:
            why = "it repeats another cell"
        seen.add(key)
        if why is None:
            parts.setdefault("tool" if by_tool else cell.quantity, []).append(cell)
        else:
            left_out.append({"cell": str(cell), "why": why})
    return parts, left_out


def _search(
    cells: list[Cell],
    kind: str,
    table: PublishedTable,
    copies: int,
    seed: int,
    devices: tuple[str, ...],
) -> tuple[Found, bool]:
    """Search at the stated text length first; return what was found, and whether it was there."""
    digits = altered(cells, copies, seed)
    bases = [_base(cell, table) for cell in cells]

    def over(lengths: NDArray[np.int64]) -> Found:
        if kind == "tool":
            return tool_search(cells, devices, lengths, digits)
        return search(cells, bases, lengths, digits, kv=kind == "kv_cache")

    if table.text_tokens is not None:
        found = over(np.array([table.text_tokens]))
        if found.best == len(cells):
            return found, True
    return over(TEXT_LENGTHS), False


def _base(cell: Cell, table: PublishedTable) -> Schedule | None:
    """Return the schedule that a ratio refers to, the unreduced model where no row is named."""
    if not cell.ratio or cell.schedule is None:
        return None
    same = [o for o in table.cells if o.row == cell.base and o.schedule is not None]
    same = [o for o in same if o.model == cell.model] or same
    return same[0].schedule if same else parse_schedule("0:V", cell.schedule.full)


def _concluded(
    table: PublishedTable,
    parts: list[tuple[str, list[Cell]]],
    results: list[tuple[Found, bool]],
    suspects: set[int],
    left_out: list[dict[str, str]],
    copies: int,
    rest: Mapping[str, Any],
) -> Audit:
    """Put the searches together: one verdict for the table."""
    missed: list[dict[str, Any]] = []
    assumptions: dict[str, Any] = {}
    rivals: list[dict[str, Any]] = []
    total = matched = 0
    alike = True
    reached = np.zeros(copies, dtype=np.int64)
    for (kind, cells), (found, stated) in zip(parts, results, strict=True):
        best = found.families[0] if found.families else None
        prints = best["prints"] if best is not None else np.zeros(len(cells), dtype=bool)
        for place, cell in enumerate(cells):
            if prints[place]:
                continue
            if id(cell) in suspects:
                # The table's own rows speak against it: it is named there, and is no evidence.
                left_out.append({"cell": str(cell), "why": "other rows of the table contradict it"})
                continue
            needs = needed_tokens(cell, best) if best is not None and kind != "tool" else {}
            printable = bool(found.printable[place])
            missed.append({"cell": str(cell), "no_set_prints_it": not printable, **needs})
        ruled_out = sum(id(c) in suspects and not prints[i] for i, c in enumerate(cells))
        total += len(cells) - ruled_out
        matched += found.best
        reached += found.copies
        alike = alike and len(found.families) == 1
        if best is not None:
            assumptions[kind] = _told(best) | ({"text_stated": True} if stated else {})
            rivals += [{"quantity": kind, **_told(each)} for each in found.families[1:]]
    p = (1 + int((reached >= matched).sum())) / (1 + copies) if copies and parts else None
    verdict = NOT_EXPLAINED
    if total and matched == total:
        sure = alike and p is not None and p <= P_VALUE
        verdict = EXPLAINED if sure else NOT_IDENTIFIED
    remarks = list(rest["remarks"])
    if total == 1:
        remarks.append("one number with a free text length proves nothing: every set of assumptions "
                       "listed prints it")  # fmt: skip
    if len(rivals) > MOST_RIVALS:
        remarks.append(f"{len(rivals) - MOST_RIVALS} more families do as well")
    told = (
        {
            "copies": copies,
            "mean": float(reached.mean()),
            "most": int(reached.max()),
            "exact": all(found.exact for found, _ in results),
        }
        if copies
        else {}
    )
    return Audit(
        table.name, verdict, total, matched, p, told, assumptions, tuple(rivals[:MOST_RIVALS]),
        rest["contradictions"], rest["impossible"], rest["measured"], tuple(missed),
        tuple(left_out), tuple(dict.fromkeys(remarks)),
    )  # fmt: skip


def _told(family: Mapping[str, Any]) -> dict[str, Any]:
    """Return a family as a reader takes it in."""
    text = family["text_tokens"]
    said = dict(family["assumptions"])
    if text:
        said["text_tokens"] = text[0] if len(text) == 1 else [text[0], text[-1]]
    said["digits"] = " or ".join(family["digits"])
    return said
