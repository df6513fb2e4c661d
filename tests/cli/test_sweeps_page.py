"""docs/sweeps.md: its commands print what it shows, and its Python runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from page_runs import check_run, console_runs, python_blocks

PAGE = Path(__file__).parents[2] / "docs" / "sweeps.md"


@pytest.mark.parametrize(("line", "shown"), console_runs(PAGE))
def test_lines_print_what_the_page_shows(line, shown, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert shown, "a command without an answer"
    check_run(line, shown, capsys)


@pytest.mark.parametrize("block", python_blocks(PAGE))
def test_python_runs(block) -> None:
    exec(block, {})  # noqa: S102  (the page's own)
