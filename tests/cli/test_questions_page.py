"""The page "Questions people asked": its commands run, and print what it shows of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from page_runs import check_run, console_runs

PAGE = Path(__file__).parents[2] / "docs" / "questions.md"


@pytest.mark.parametrize(("line", "shown"), console_runs(PAGE))
def test_lines_print_what_the_page_shows(line, shown, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert shown, "a command without an answer"
    check_run(line, shown, capsys)


def test_every_question_is_there_once() -> None:
    numbers = re.findall(r"^\*\*(\d+)\. ", PAGE.read_text("utf-8"), flags=re.MULTILINE)
    assert [int(number) for number in numbers] == list(range(1, 25))
