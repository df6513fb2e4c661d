"""docs/promises.md says what is promised, how it is checked, and that it held or what stands in the way."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "promises.md"


@pytest.fixture(scope="module")
def program():
    path = ROOT / "benchmarks" / "promises.py"
    spec = importlib.util.spec_from_file_location("promises", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["promises"] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(path.parent))
        del sys.modules["promises"]


def rows() -> dict[str, list[str]]:
    """Return the page's rows by their promise."""
    cells = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in PAGE.read_text(encoding="utf-8").partition("## What it grew to")[0].splitlines()
        if re.match(r"\| (?!promise)", line)
    ]
    return {row[0].strip("| "): row[1:] for row in cells}


def test_every_promise_stands_on_the_page_with_its_limit_and_command(program) -> None:
    found = rows()
    assert list(found) == [
        each.what for to in ("user", "contributor") for each in program.PROMISES if each.to == to
    ]
    for each in program.PROMISES:
        limit, figure, holds, seen, command = found[each.what]
        assert limit == each.limit
        assert figure
        assert holds in ("yes", "**no**")
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", seen) or holds == "**no**"
        assert command.strip("` |") == each.command


def test_the_tests_that_a_promise_names_exist(program) -> None:
    named = [word for each in program.PROMISES for word in each.command.split() if "/" in word]
    assert len(named) > 20
    missing = [word for word in named if not (ROOT / word).exists()]
    assert not missing


def test_a_check_that_fails_is_said(program) -> None:
    command, check = program.tests("tests/packaging/no_such_file.py")
    assert command == "pytest tests/packaging/no_such_file.py"
    assert not check().holds


def test_stored_figures_are_held_to_their_limits(program, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(program, "DOCS", tmp_path)
    table = tmp_path / "reliability.csv"
    table.write_text(
        "what,cases,ok,faults,date\nestimate,60000,9,0,2026-11-02\n"
        "sweep,50000,9,0,2026-11-01\nkill,250,150,0,2026-11-03\n",
        encoding="utf-8",
    )
    assert program.fuzzed(False, 100_000) == (
        "110,000 spoilt inputs at 2 doors, 0 faults",
        True,
        "2026-11-01",
    )
    assert not program.fuzzed(True, 200).holds
    table.write_text(
        "what,cases,ok,faults,date\nestimate,200000,9,1,2026-11-02\n", encoding="utf-8"
    )
    assert not program.fuzzed(False, 100_000).holds


def test_lines_by_package_are_gits(program, monkeypatch) -> None:
    """Two commits of a small history: a room that was there, one that is new."""
    growth = sys.modules["growth"]
    told = {
        "old": ["old:tests/a.py:3", "old:costmodel/ops/b.py:5"],
        "HEAD": [
            "HEAD:tests/a.py:4",
            "HEAD:costmodel/ops/b.py:5",
            "HEAD:costmodel/new/deep/c.py:10",
        ],
    }
    monkeypatch.setattr(
        growth, "_git", lambda *words: told[next(word for word in words if word in told)]
    )
    said = growth.growth("old")
    assert "| costmodel | 5 | 15 | 5 | 10 | 1 to 2 |" in said
    assert "Rooms since: costmodel/new 10." in said
    page = PAGE.read_text(encoding="utf-8")
    assert all(f"| {package} |" in page for package in growth.WENT)
