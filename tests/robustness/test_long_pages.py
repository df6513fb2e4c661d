"""Pages whose commands fit, measure or draw: they take seconds, and print what the pages show."""

from __future__ import annotations

from pathlib import Path

import pytest
from page_runs import run_page

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["calibrating", "measuring", "gallery"])
def test_a_page_prints_what_it_shows(name: str, tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "docs" / "images").mkdir(parents=True)
    for folder in ("measurements", "notebooks", "tests"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    run_page(ROOT / "docs" / f"{name}.md", tmp_path, capsys)
