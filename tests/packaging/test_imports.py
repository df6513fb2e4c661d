"""Imports only fall: from package to package, from wing to wing, and never in a circle.

Every import counts: those inside functions and those for type checkers alone too, since who reads a
module must follow them all.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import hardware_specs

ROOT = Path(hardware_specs.__file__).parents[1]

#: The packages, each of which imports only what stands before it.
PACKAGES = ("hardware_specs", "costmodel", "token_reduction", "profiling", "vlm_roofline")
#: The wings of `profiling`, likewise; wings in one tuple do not know each other.
WINGS = (
    ("records", "devices"),
    ("instruments", "subject"),
    ("counting", "tracing"),
    ("measuring",),
    ("microbench",),
    ("reconciling",),
    ("explaining", "importing"),
    ("report",),
    ("answering", "whole_loop", "sharing", "device_campaign"),
)
#: What stands on top of the cost model: nothing in it imports these, but they may import each other.
ON_TOP = ("costmodel.questions", "costmodel.plots", "costmodel.reproduce", "costmodel.audits")

Graph = dict[str, set[str]]


def imports_of(root: Path, packages: tuple[str, ...] = PACKAGES) -> Graph:
    """Return the modules of some packages, each with those of them that it imports."""
    files = {}
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    graph: Graph = {}
    for module, path in files.items():
        found = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    parents = module.split(".")
                    up = node.level - (path.name == "__init__.py")
                    base = ".".join([*parents[: len(parents) - up], *base.split(".")]).strip(".")
                # `from package import module` imports the module; `from module import name` not.
                names = {f"{base}.{alias.name}" for alias in node.names}
                found |= {name if name in files else base for name in names}
        graph[module] = (found & files.keys()) - {module}
    return graph


def circles(graph: Graph) -> list[list[str]]:
    """Return every group of modules that reach each other."""
    reached: Graph = {}
    for start in graph:
        seen: set[str] = set()
        ahead = list(graph[start])
        while ahead:
            module = ahead.pop()
            if module not in seen:
                seen.add(module)
                ahead += graph[module]
        reached[start] = seen
    groups = {
        tuple(sorted(other for other in graph if other in reached[one] and one in reached[other]))
        for one in graph
        if one in reached[one]
    }
    return [list(group) for group in sorted(groups)]


def upward(graph: Graph, order: tuple[str | tuple[str, ...], ...], level: int) -> list[str]:
    """Return the imports that climb in an order of packages (level 0) or of wings (level 1)."""
    ranks = {
        name: rank
        for rank, names in enumerate(order)
        for name in ((names,) if isinstance(names, str) else names)
    }
    found = []
    for module, imported in graph.items():
        for other in imported:
            here, there = module.split(".")[: level + 1], other.split(".")[: level + 1]
            if here == there or here[:level] != there[:level] or len(here) <= level:
                continue
            one, two = ranks.get(here[level]), ranks.get(there[level] if len(there) > level else "")
            if one is not None and two is not None and two >= one:
                found.append(f"{module} imports {other}")
    return sorted(found)


def wings_of(graph: Graph, package: str) -> Graph:
    """Return the graph of a package's top files and folders."""
    wings: Graph = {}
    for module, imported in graph.items():
        name = module.split(".")
        if name[0] == package and len(name) > 1:
            wing = wings.setdefault(name[1], set())
            others = (other.split(".") for other in imported)
            wing.update(o[1] for o in others if o[0] == package and len(o) > 1 and o[1] != name[1])
    for wing in list(wings.values()):
        for other in wing:
            wings.setdefault(other, set())
    return wings


@pytest.fixture(scope="module")
def graph() -> Graph:
    return imports_of(ROOT)


def test_no_circle_among_modules(graph: Graph) -> None:
    assert len(graph) > 200
    assert circles(graph) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_circle_among_wings(graph: Graph, package: str) -> None:
    assert circles(wings_of(graph, package)) == []


def test_no_import_climbs_between_packages(graph: Graph) -> None:
    assert upward(graph, PACKAGES, 0) == []


def test_no_import_climbs_between_the_wings_of_profiling(graph: Graph) -> None:
    profiling = {module: found for module, found in graph.items() if module.startswith("profiling")}
    named = {name for names in WINGS for name in names}
    assert set(wings_of(graph, "profiling")) == named, "name the new wing in WINGS"
    assert upward(profiling, WINGS, 1) == []


def test_nothing_below_imports_what_stands_on_top_of_the_cost_model(graph: Graph) -> None:
    inner = {
        module: {other for other in found if other.startswith(ON_TOP)}
        for module, found in graph.items()
        if module.startswith("costmodel.") and not module.startswith(ON_TOP)
    }
    assert {module: found for module, found in inner.items() if found} == {}


#: A small house: file -> text, with one offence each.
OFFENCES = {
    "a circle of two": (
        {"low/a.py": "import low.b", "low/b.py": "from low import a"},
        [["low.a", "low.b"]],
        [],
        [],
    ),
    "a circle closed for type checkers only": (
        {
            "low/a.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from low.b import x",
            "low/b.py": "import low.a",
        },
        [["low.a", "low.b"]],
        [],
        [],
    ),
    "a circle closed inside a function": (
        {
            "low/a.py": "def f():\n    from .b import x",
            "low/b.py": "from . import c",
            "low/c.py": "from .a import f",
        },
        [["low.a", "low.b", "low.c"]],
        [],
        [],
    ),
    "a climb between packages": (
        {"low/a.py": "from high.x.m import y", "high/x/m.py": ""},
        [],
        ["low.a imports high.x.m"],
        [],
    ),
    "a climb between wings": (
        {"high/x/m.py": "from high.y import n", "high/y/n.py": ""},
        [],
        [],
        ["high.x.m imports high.y.n"],
    ),
    "none": (
        {"low/a.py": "", "high/x/m.py": "import low.a", "high/y/n.py": "from high.x import m"},
        [],
        [],
        [],
    ),
}


@pytest.mark.parametrize("offence", OFFENCES)
def test_planted_offences_are_found(tmp_path: Path, offence: str) -> None:
    files, round_, packages, wings = OFFENCES[offence]
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    graph = imports_of(tmp_path, ("low", "high"))
    assert circles(graph) == round_
    assert upward(graph, ("low", "high"), 0) == packages
    assert upward(graph, ("x", "y"), 1) == wings


def test_a_circle_of_wings_without_one_of_modules_is_found(tmp_path: Path) -> None:
    for name, text in {
        "p/x/a.py": "import p.y.a", "p/y/a.py": "", "p/y/b.py": "import p.x.b", "p/x/b.py": "",
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    graph = imports_of(tmp_path, ("p",))
    assert circles(graph) == []
    assert circles(wings_of(graph, "p")) == [["x", "y"]]


def test_only_the_device_layer_touches_the_device() -> None:
    """`torch.cuda` and its backends are called in `profiling/devices` alone.

    Packages below `profiling` cannot import that layer: they may ask whether there is a GPU, and whether
    its stream is capturing, each in one place.
    """
    allowed = {
        "hardware_specs/detect.py": {"is_available", "get_device_properties", "current_device"},
        "token_reduction/tokens/checks.py": {"is_current_stream_capturing"},
    }
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            used = {
                node.attr
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Attribute)
                and ast.unparse(node.value)
                in ("torch.cuda", "torch.backends.cuda", "torch.backends.cudnn")
            }
            if used - allowed.get(name, set()) and not name.startswith("profiling/devices/"):
                found[name] = used
    assert found == {}
