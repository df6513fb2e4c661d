"""Tables on terminals of 60, 80 and 160 columns and on a pipe: no number is cut, no line is too long."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest

from vlm_roofline.cli import console, main, tables

ROOT = Path(__file__).parents[2]
FASTV = ["llava-1.5-7b", "-d", "nvidia-a100-sxm4-80gb", "--method", "fastv", "--output-tokens", "9"]
COMMANDS = {
    "specs list": ["specs", "list"],
    "specs show": ["specs", "show", "nvidia-h100-sxm5-80gb"],
    "models list": ["models", "list"],
    "models show": ["models", "show", "llava-onevision-7b"],
    "methods list": ["methods", "list"],
    "methods show": ["methods", "show", "fastv"],
    "estimate": ["estimate", *FASTV],
    "estimate --ops": ["estimate", *FASTV, "--ops"],
    "compare": ["compare", *FASTV, "--keep", "64,0.5"],
    "frontier": ["frontier", *FASTV[:3], "--benchmark", "pope"],
    "explain": ["explain", str(ROOT / "tests" / "data" / "traces" / "h100_bert_small.json.gz")],
    "measurements": ["measurements", str(ROOT / "measurements")],
    "reconcile": ["reconcile", "{folder}/runs", "--calibration", "{folder}/law.json"],
    "count": ["count", "llava-1.5-7b", "--scale", "layers=2,width=1/8", "--visual-tokens", "64",
              "--no-fvcore"],
    "reproduce": ["reproduce", "fastv"],
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("width", [60, 80, 160, None], ids=lambda width: str(width or "pipe"))
def test_no_number_is_cut(monkeypatch, capsys, request, command: str, width: int | None) -> None:
    arguments = COMMANDS[command]
    if command == "reconcile":
        folder = request.getfixturevalue("folder")
        arguments = [word.format(folder=folder) for word in arguments]
    cells: list[str] = []
    drawn = tables._drawn

    def spied(fits, room, every, *rest):
        for fit in fits:
            if fit.column.unit:
                texts = (str(line[fit.place]) for line in every)
                cells.extend(text.strip() for text in texts if re.search(r"\d", text))
        return drawn(fits, room, every, *rest)

    monkeypatch.setattr(tables, "_drawn", spied)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    if width is not None:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    console._consoles.cache_clear()
    try:
        code = main(arguments)
        out = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    finally:
        console._consoles.cache_clear()
    assert code == 0
    assert "\u2026" not in out
    if command == "explain" and width == 160:
        assert "NVIDIA H100 80GB HBM3, calibration nvidia-h100-sxm5-80gb\n" in out
    assert max(map(len, out.splitlines())) <= (width or 160)
    # Each number stands on one line, with nothing of another number at its ends.
    for cell in dict.fromkeys(cells):
        assert re.search(rf"(?<![\w.,]){re.escape(cell)}(?![\w,])", out), cell
    assert cells or command in ("methods list", "methods show")


def shown(monkeypatch, capsys, words: list[str]) -> str:
    """Return what a command prints in a terminal of 80 columns."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    console._consoles.cache_clear()
    try:
        assert main(words) == 0
    finally:
        console._consoles.cache_clear()
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)


def test_a_sweep_shows_what_differs_and_what_it_costs(monkeypatch, capsys) -> None:
    words = ["sweep", *FASTV[:3], "--method", "none,divprune", "--keep", "0.1", "--visual-tokens"]
    lines = shown(monkeypatch, capsys, [*words, "64,576"]).splitlines()
    heading = next(line.split() for line in lines if "TTFT" in line)
    assert heading[:3] == ["tokens", "method", "keep"]
    assert "total" not in heading  # nothing is decoded: it is the time to the first token
    assert [line.split()[:3] for line in lines if re.match(r" +\d", line)] == [
        ["64", "none", "-"], ["576", "none", "-"], ["64", "divprune", "0.1"], ["576", "divprune", "0.1"],
    ]  # fmt: skip
    out = shown(monkeypatch, capsys, [*words, "10:60"])
    assert out.count("divprune") == 49
    assert "the first 100 rows; --out" in out
    assert "--out" not in shown(monkeypatch, capsys, [*words, "10:59"])


def test_columns_that_found_no_room_are_named(monkeypatch, capsys) -> None:
    out = shown(monkeypatch, capsys, ["compare", *FASTV])
    named = next(line for line in out.splitlines() if "no room for" in line)
    assert "memory ratio" in named
    assert "total" not in named


def test_a_terminal_of_forty_columns_folds() -> None:
    """Three numbers of 30 digits on a terminal for one: each on a table of its own, none cut."""
    from rich.console import Console

    rows = [{"name": "first", "a": 10**22, "b": 2 * 10**22, "c": 3 * 10**22}]
    shown = [tables.Column("name", "name"), *(tables.Column(n, n, "1") for n in "abc")]
    out = Console(width=40, file=io.StringIO())
    out.print(tables.table(rows, shown, width=40))
    text = out.file.getvalue()
    assert text.count("first") == 3
    assert all(f"{n * 10**22:,}" in text for n in (1, 2, 3))


def test_every_part_of_a_folded_table_says_which_row_it_is_of() -> None:
    """By the columns that tell rows apart, or by a number where these are too wide."""
    from rich.console import Console

    def printed(names: list[str]) -> str:
        rows = [{"method": n, "keep": keep, "a": 10**22} for n in names for keep in (1, 2)]
        shown = [tables.Column(n, n) for n in ("method", "keep")]
        shown += [tables.Column(n, "a", "1") for n in "bc"]
        out = Console(width=50, file=io.StringIO())
        out.print(tables.table(rows, shown, width=50))
        return out.file.getvalue()

    assert printed(["fastv", "vtw"]).count("keep") == 2
    assert printed(["x" * 30, "y" * 30]).count("#") >= 2
