"""The worked diff of docs/add-a-method.md: it fits the files it changes, and what it adds works in them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from costmodel import estimate
from costmodel.methods import registry
from token_reduction import reduce_tokens

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "add-a-method.md").read_text("utf-8")
(DIFF,) = re.findall(r"```diff\n(.*?)```", PAGE, re.DOTALL)
#: file -> its lines in the diff, with their marks
FILES = {
    name: [line for line in body.splitlines() if not line.startswith(("@@", "+++"))]
    for name, body in re.findall(
        r"^\+\+\+ b/(\S+)\n(.*?)(?=^---|\Z)", DIFF, re.MULTILINE | re.DOTALL
    )
}
NEW = {name: lines for name, lines in FILES.items() if all(line[0] == "+" for line in lines)}


def added(name: str) -> str:
    return "\n".join(line[1:] for line in FILES[name] if line[0] == "+") + "\n"


@pytest.fixture
def applied(monkeypatch):
    """The new modules and the registry's new line; the module of tests."""
    (line,) = re.findall(r'"(\w+)": "(\w+)"', added("costmodel/methods/registry.py"))
    monkeypatch.setitem(registry.MODULES, *line)
    modules = []
    for name in sorted(NEW, key=lambda name: (name.startswith("tests/"), name)):
        module = ModuleType(name.removesuffix(".py").replace("/", "."))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(added(name), vars(module))  # noqa: S102  (the page's own code is what is tested)
        modules.append(module)
    return line[0], modules[-1]


def test_it_fits_the_files_it_changes() -> None:
    assert len(NEW) == 3
    assert len(FILES) == 5
    for name in FILES.keys() - NEW.keys():
        around = [line[1:] for line in FILES[name] if line[0] == " "]
        assert "\n".join(around) in (ROOT / name).read_text("utf-8"), name
    assert not any((ROOT / name).exists() for name in NEW)


def test_it_works(applied, llava, cases) -> None:
    name, tests = applied
    for test in [value for key, value in vars(tests).items() if key.startswith("test_")]:
        test()
    with torch.no_grad(), reduce_tokens(llava, name) as record:
        llava(**cases["llava"].inputs)
    assert record.visual_tokens == (576, 144)
    cost = estimate("llava-1.5-7b", "nvidia-a100-sxm4-80gb", method=name)
    assert cost.visual_tokens_by_layer == ((32, 144),)
    assert cost.stages["reduction"].flops == 0
