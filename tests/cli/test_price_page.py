"""docs/price-your-model.md: every command runs on a model of one's own, and prints what the page shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from page_runs import check_run, console_runs, python_blocks

from costmodel.models import config_dict

PAGE = Path(__file__).parents[2] / "docs" / "price-your-model.md"


@pytest.fixture(autouse=True)
def my_model(tmp_path, monkeypatch):
    (tmp_path / "my-model").mkdir()
    (tmp_path / "my-model" / "config.json").write_text(json.dumps(config_dict("qwen2.5-vl-7b")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.parametrize(("line", "shown"), console_runs(PAGE))
def test_lines_print_what_the_page_shows(line, shown, capsys) -> None:
    check_run(line, shown, capsys)


@pytest.mark.parametrize("block", python_blocks(PAGE))
def test_python_runs(block) -> None:
    exec(block, {})  # noqa: S102  (the page's own)
