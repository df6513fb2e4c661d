"""Pages whose blocks are run: a command line prints what the page shows of it, and Python runs."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from vlm_roofline.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def console_runs(page: Path) -> list[tuple[str, list[str]]]:
    """Return every `$ vlm-roofline ...` line of a page, with the lines shown below it."""
    runs: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", page.read_text("utf-8"), flags=re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                runs.append((line[2:], []))
            elif line.strip() not in ("", "..."):
                runs[-1][1].append(line)
    return runs


def python_blocks(page: Path) -> list[str]:
    """Return the Python blocks of a page."""
    return re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), flags=re.DOTALL)


def write_files(page: Path, folder: Path) -> None:
    """Write the blocks of a page that are files, ```csv title="table.csv", into a folder."""
    found = re.findall(r'```\w+ title="(.*?)"\n(.*?)```', page.read_text("utf-8"), flags=re.DOTALL)
    for name, text in found:
        (folder / name).write_text(text, "utf-8")


def run_page(page: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Write a page's files into the working folder, and run its commands and then its Python there."""
    write_files(page, folder)
    runs = console_runs(page)
    assert runs
    for line, shown in runs:
        check_run(line, shown, capsys)
    for block in python_blocks(page):
        exec(block, {})  # noqa: S102  (the page's own)


def check_run(line: str, shown: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Run a command line, and look for what is shown of it in what it prints, spaces and breaks aside."""
    program, *arguments = shlex.split(line)
    assert program == "vlm-roofline"
    code = main(arguments)
    printed = capsys.readouterr()
    text = " ".join((printed.out + printed.err).split())
    for expected in shown:
        assert " ".join(expected.split()) in text, text
    assert code == (2 if printed.err and not printed.out else 0)
