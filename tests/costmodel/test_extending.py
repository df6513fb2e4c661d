"""What docs/extending.md shows for families and plans runs as it stands; names are guarded."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from costmodel.models import get_family, list_families, register_family
from costmodel.models.families import _FAMILIES
from costmodel.plans import get_plan, list_plans, register_plan
from costmodel.registry import Registry
from hardware_specs.errors import InvalidInputError, UnknownNameError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("section", ["A family", "A plan"])
def test_the_worked_examples_run(section: str, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    body = text.split(f"\n## {section}\n")[1].split("\n## ")[0]
    code = "\n".join(re.findall(r"```python\n(.*?)```", body, re.DOTALL))
    assert "assert" in code
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)


def test_names_that_are_taken_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="model family 'llava' already"):
        register_family(replace(get_family("llava_next"), model_type="llava"))
    with pytest.raises(InvalidInputError, match="execution plan 'fused' already"):
        register_plan(replace(get_plan("hf-eager"), name="fused"))


def test_unknown_names_have_near_matches() -> None:
    with pytest.raises(UnknownNameError, match="unknown model family 'lava'; did you mean llava"):
        get_family("lava")
    with pytest.raises(UnknownNameError, match="unknown execution plan 'cuda'; did you mean cuda-"):
        get_plan("cuda")
    with pytest.raises(UnknownNameError):
        get_plan(["fused"])  # type: ignore[arg-type]


def test_an_installed_package_may_name_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point is found by its name, loaded when asked for, and never replaces what ships."""

    class EntryPoint:
        def __init__(self, name: str) -> None:
            self.name = name

        def load(self) -> str:
            return f"the {self.name} of a package"

    points = [EntryPoint("shipped"), EntryPoint("theirs")]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points)
    registry: Registry[str] = Registry("thing", {"shipped": "costmodel.plans"}, "__doc__", "things")
    assert registry.names() == ("shipped", "theirs")
    assert registry.get("theirs") == "the theirs of a package"
    assert "Execution plans" in registry.get("shipped")


def test_every_file_is_registered() -> None:
    """A module that describes a family or plan and that no name leads to fails here."""
    package = ROOT / "costmodel"
    for folder, names, mark in (
        ("models/families", list_families(), "FAMILY = "),
        ("plans", list_plans(), "PLAN = "),
    ):
        files = (package / folder).glob("*.py")
        described = {f.stem for f in files if f"\n{mark}" in f.read_text(encoding="utf-8")}
        assert described == {name.replace("-", "_") for name in names}
    assert all(_FAMILIES.get(name).model_type == name for name in list_families())
    assert all(get_plan(name).name == name for name in list_plans())
