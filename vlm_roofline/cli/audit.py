"""`vlm-roofline audit`: how a published table was counted, as far as its digits can tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hardware_specs.errors import InvalidInputError
from vlm_roofline.cli.console import console, print_json, progress
from vlm_roofline.cli.options import Json, hardware_option
from vlm_roofline.cli.paths import typed_file

if TYPE_CHECKING:
    from costmodel.audits import Audit

_STYLES = {
    "explained": "bold green",
    "explained, not identified": "bold yellow",
    "not explained": "bold red",
}
#: Rivals and cells shown; all of them are in --json.
MOST_SHOWN = 12


def audit(
    table: Annotated[
        str,
        typer.Argument(
            metavar="TABLE",
            parser=typed_file,
            help="CSV, Markdown or LaTeX file, or a name of `reproduce list`.",
        ),
    ],
    model: Annotated[str | None, typer.Option(help="Model of rows that name none.")] = None,
    hardware: Annotated[
        str | None, hardware_option("Device of measured cells, if the table names none.")
    ] = None,
    text_tokens: Annotated[
        int | None, typer.Option(help="Text length that the paper states; solved if absent.")
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="'HEADING=ROLE UNIT'",
            help="What a column is, such as 'Cost=flops T'.",
        ),
    ] = None,
    copies: Annotated[
        int, typer.Option(help="Altered copies of the null test; 0 leaves it out.")
    ] = 999,
    seed: Annotated[int, typer.Option(help="Seed of the altered copies.")] = 0,
    json: Json = False,
) -> None:
    """Find contradictions, impossible cells and the assumptions behind a published table."""
    from costmodel.audits import audit as answer
    from costmodel.audits import read_table

    named = dict(_named(text) for text in columns or ())
    # Read first: a bar for a file that is not there would be a promise.
    read = read_table(table, model=model, columns=named, text_tokens=text_tokens)
    for each in progress([read], "auditing"):
        result = answer(each, hardware=hardware, text_tokens=text_tokens, copies=copies, seed=seed)
    if json:
        print_json(result.to_dict())
        return
    print_audit(result)


def _named(text: str) -> tuple[str, str]:
    heading, equals, role = text.rpartition("=")
    if not equals or not heading.strip() or not role.strip():
        raise InvalidInputError(
            f"--column {text!r} is not HEADING=ROLE UNIT, such as 'Cost=flops T'"
        )
    return heading.strip(), role.strip()


def print_audit(result: Audit) -> None:
    """Print an audit for people: the verdict, what speaks against the table, and what explains it."""
    out = console()
    out.print(f"{result.name}: {result.verdict}", style=_STYLES[result.verdict])
    out.print(evidence_line(result))
    for title, found in (
        ("contradictions", result.contradictions),
        ("impossible", result.impossible),
        ("measured", result.measured),
    ):
        if found:
            out.print(f"\n{title}", style="bold")
            _lines([f"{_kind(each)}{each['text']}" for each in found])
    for quantity, best in result.assumptions.items():
        from vlm_roofline.cli.tables import columns, table

        rows = [
            {"what": name.replace("_", " "), "how": _words(told)} for name, told in best.items()
        ]
        title = f"\nbest set of assumptions, {quantity.replace('_', ' ')}"
        out.print(table(rows, columns(assumption="what", value="how"), title=title))
    if result.rivals:
        out.print(f"\nother families that do as well: {len(result.rivals)}", style="bold")
        best = dict(result.assumptions)
        _lines([rival_line(rival, best[rival["quantity"]]) for rival in result.rivals])
    if result.missed:
        out.print("\nnot printed by the best set", style="bold")
        _lines([missed_line(each) for each in result.missed])
    if result.left_out:
        out.print("\nno evidence", style="bold")
        reasons: dict[str, list[str]] = {}
        for each in result.left_out:
            reasons.setdefault(each["why"], []).append(each["cell"])
        _lines([f"{why}: {named_cells(cells)}" for why, cells in reasons.items()])
    for remark in result.remarks:
        out.print(f"note: {remark}", style="dim")


def evidence_line(result: Audit) -> str:
    """Say how many cells are printed, never without what altered copies reach."""
    share = f"{result.matched} of {result.cells} distinct informative cells"
    if result.p_value is None:
        return f"{share}; how many altered digits would reach was not tested (--copies 0)"
    most = "" if result.copies["exact"] else "no more than "
    return (
        f"{share}; the best set of {result.copies['copies']} altered copies prints "
        f"{most}{result.copies['mean']:.1f} on average, {result.copies['most']} at most: "
        f"p = {result.p_value:.3f}"
    )


def named_cells(cells: list[str]) -> str:
    """Name a cell or two, count more."""
    return "; ".join(cells) if len(cells) < 3 else f"{len(cells)} cells"


def _kind(found: Any) -> str:
    return f"{found['kind']}: " if "kind" in found else ""


def _words(told: Any) -> str:
    if isinstance(told, dict):
        return ", ".join(f"{name}: {value}" for name, value in told.items())
    if isinstance(told, list):
        return " to ".join(map(str, told))
    return "yes" if told is True else str(told)


def rival_line(rival: Any, best: Any) -> str:
    """Say in what a rival differs from the best set."""
    unlike = {k: v for k, v in rival.items() if k != "quantity" and best.get(k) != v}
    return "; ".join(f"{name.replace('_', ' ')}: {_words(told)}" for name, told in unlike.items())


def missed_line(missed: Any) -> str:
    """Say what a cell would need."""
    text = str(missed["cell"])
    if "set_gives" in missed:
        text += f": the set gives {missed['set_gives']:.5g}"
    if "needs_tokens" in missed:
        low, high = missed["needs_tokens"]
        text += f"; it would need {low if low == high else f'{low} to {high}'} visual tokens"
    return text + ("; no set of assumptions prints it" if missed["no_set_prints_it"] else "")


def _lines(lines: list[str]) -> None:
    for line in lines[:MOST_SHOWN]:
        console().print(f"- {line}")
    if len(lines) > MOST_SHOWN:
        console().print(f"- {len(lines) - MOST_SHOWN} more are in --json")
