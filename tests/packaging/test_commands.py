"""What README promises, what the Makefile has and what continuous integration runs are the same."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def _commands(text: str, indent: str) -> list[str]:
    """The `make` lines of a text, as printed: without the remark behind them."""
    found = re.findall(rf"^{indent}(make\b[^#\n]*)", text, flags=re.MULTILINE)
    return [command.strip() for command in found]


def test_continuous_integration_runs_what_readme_prints() -> None:
    section = README.split("## Two commands")[1].split("\n## ")[0]
    promised = _commands(section, " {4}")
    assert promised == ["make demo", "make test"]
    run = _commands(CI, "")
    assert run[0] == "make check"
    assert [command for command in run if command in promised] == promised


def test_continuous_integration_adds_no_argument_and_no_variable() -> None:
    for command in _commands(CI, ""):
        assert re.fullmatch(r"make [a-z]+", command), command
    assert not re.search(r"(PYTHON|TORCH|VENV)=|==", CI)


def test_every_command_that_is_named_is_a_target() -> None:
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, flags=re.MULTILINE))
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(
        r"(?<![a-z])make ([a-z]+)",
        CI + "\n".join(re.findall(r"`(make .*?)`", README + contributing)),
    )
    assert named
    assert set(named) <= targets
    assert targets <= set(re.findall(r"[a-z]+", MAKEFILE.split(".PHONY:")[1].split("\n")[0]))
