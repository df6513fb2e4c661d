"""From files to names: a module that describes a method is registered, on either side."""

import ast
from pathlib import Path

import pytest

from costmodel.methods import list_methods, method_info
from costmodel.methods.registry import MODULES, infos_of

ROOT = Path(__file__).parents[3]


def describes_a_method(path: Path) -> bool:
    """Whether a module declares an INFO or INFOS, or says its place in its docstring."""
    tree = ast.parse(path.read_text("utf-8"))
    names = {
        target.id
        for node in tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    return bool({"INFO", "INFOS"} & names) or "\nPlace: " in (ast.get_docstring(tree) or "")


@pytest.mark.parametrize("folder", ["costmodel/methods", "token_reduction"])
def test_every_module_that_describes_a_method_is_registered(folder) -> None:
    found = {path.stem for path in (ROOT / folder).glob("*.py") if describes_a_method(path)}
    assert found == set(MODULES.values())


@pytest.mark.parametrize("module", sorted(set(MODULES.values())))
def test_a_module_names_exactly_its_methods(module) -> None:
    from importlib import import_module

    infos = infos_of(import_module(f"costmodel.methods.{module}"))
    assert {info.name for info in infos} == {
        name for name, home in MODULES.items() if home == module
    }


@pytest.mark.parametrize("name", list_methods())
def test_every_method_has_a_function_and_a_plug(name) -> None:
    pytest.importorskip("torch")
    from importlib import import_module

    from token_reduction.reduction import plug_of

    module = import_module(f"token_reduction.{MODULES[name]}")
    assert callable(getattr(module, name.rstrip("+")))
    assert plug_of(name) is module.plug
    assert method_info(name).name == name
