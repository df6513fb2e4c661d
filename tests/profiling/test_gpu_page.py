"""docs/gpu.md names a test for everything that could go wrong on a GPU; each of them exists."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "gpu.md"
HERE = Path(__file__).parent


def _held() -> dict[str, list[tuple[str, str]]]:
    """What could go wrong -> (test file, beginning of the test's name)."""
    text = PAGE.read_text(encoding="utf-8")
    files = dict(re.findall(r"\b([A-Z])\b(?:\s+is)? `([\w/]+\.py)`", text))
    found: dict[str, list[tuple[str, str]]] = {}
    for row in text.split("| what could go wrong |")[1].split("\n\n")[0].splitlines()[2:]:
        trouble, _, tests = (cell.strip() for cell in row.strip("|").split("|"))
        file = ""
        for letter, name in re.findall(r"\b([A-Z])(?= `)|`([^`]+)`", tests):
            if letter:
                file = files[letter]
            elif name.endswith(".py"):
                found.setdefault(trouble, []).append((name, ""))
            else:
                found.setdefault(trouble, []).append((file, name.removesuffix("…")))
    return found


def test_every_test_that_the_page_names_exists() -> None:
    held = _held()
    assert len(held) >= 28
    for trouble, tests in held.items():
        assert tests, trouble
        for file, name in tests:
            text = (HERE / file).read_text(encoding="utf-8")
            matching = re.findall(rf"^def test_{re.escape(name)}\w*", text, re.MULTILINE)
            # One test where one is meant, any where a file is.
            assert len(matching) == 1 if name else matching, (trouble, file, name)


def test_the_share_of_lines_is_stated_with_its_command() -> None:
    text = PAGE.read_text(encoding="utf-8")
    share = re.search(r"([\d.]+) % \((\d+) of (\d+)\) of the lines", text)
    assert share
    assert "-p tests.fakes.gpu_lines" in text
    assert float(share[1]) >= 90
    assert float(share[1]) == round(100 * int(share[2]) / int(share[3]), 1)
