"""Methods from outside: registered by hand, by entry point, with a plug and without; bare schedules."""

from __future__ import annotations

import re
import sys
import tomllib
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from page_runs import check_run, console_runs, python_blocks

from costmodel import estimate, get_method, list_methods, register_method, sweep
from costmodel.methods import registry
from hardware_specs.errors import InvalidInputError, UnknownMethodError, UnsupportedError

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"
DOCS = Path(__file__).parents[3] / "docs"
PAGE = DOCS / "add-a-method.md"
EXAMPLES = python_blocks(PAGE)


@pytest.fixture
def outside(monkeypatch):
    """An empty list of methods from outside, and the page's module, importable."""
    monkeypatch.setattr(registry, "_outside", {})
    module = ModuleType("every_second")
    exec(EXAMPLES[0], vars(module))  # noqa: S102  (the page's own code is what is tested)
    monkeypatch.setitem(sys.modules, "every_second", module)
    return module


def test_the_page_runs(outside) -> None:
    exec(EXAMPLES[1], {})  # noqa: S102
    exec(python_blocks(DOCS / "extending.md")[0], {})  # noqa: S102
    assert list_methods()[-1] == "every-second"
    assert estimate(MODEL, A100, method="every-second").to_dict()["inputs"]["method"] == (
        "every-second"
    )
    rows = sweep(MODEL, A100, visual_tokens=[0, 576, 1152], method="every-second")
    one = estimate(MODEL, A100, visual_tokens=1152, method="every-second")
    assert rows["flops"].iloc[2] == one.totals.flops


def test_a_registered_method_runs(outside) -> None:
    pytest.importorskip("torch")
    from token_reduction.reduction import plug_of

    register_method(outside)
    assert plug_of("every-second") is outside.plug


def test_a_method_without_a_plug_is_only_priced(outside) -> None:
    pytest.importorskip("torch")
    from token_reduction.reduction import plug_of

    register_method(outside.INFO)
    assert estimate(MODEL, A100, method="every-second").totals.flops > 0
    with pytest.raises(UnsupportedError, match="every-second can be priced but not run"):
        plug_of("every-second")


def test_a_plug_by_name_is_imported_when_it_runs(outside) -> None:
    pytest.importorskip("torch")
    from token_reduction.reduction import plug_of

    register_method(outside.INFO, plug="every_second")
    assert plug_of("every-second") is outside.plug


def test_what_is_there_already_is_refused(outside) -> None:
    register_method(outside)
    with pytest.raises(InvalidInputError, match="a method called 'every-second' already"):
        register_method(outside)
    with pytest.raises(InvalidInputError, match="a method called 'fastv' already"):
        register_method(registry.method_info("fastv"))
    with pytest.raises(InvalidInputError, match="case makes no difference"):
        register_method(replace(outside.INFO, name="FastV"))
    for name in ("none", "", "mine(r=8)", "mine/fastv", "my own", "None"):
        with pytest.raises(InvalidInputError, match="cannot be called"):
            register_method(replace(outside.INFO, name=name))
    with pytest.raises(InvalidInputError, match="a module that holds one"):
        register_method(ModuleType("empty"))


def test_an_installed_distribution_brings_methods(outside, monkeypatch) -> None:
    points = [
        EntryPoint(name, "every_second", registry.ENTRY_POINTS) for name in ("every-second", "x")
    ]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda *, group: points)
    registry._installed.cache_clear()
    try:
        assert list_methods()[-2:] == ("every-second", "x")
        assert get_method("every-second").info is outside.INFO
        with pytest.raises(InvalidInputError, match="name it after its MethodInfo"):
            get_method("x")
    finally:
        registry._installed.cache_clear()


def test_the_page_s_distribution_is_found(outside, tmp_path, monkeypatch, capsys) -> None:
    """What `pip install` leaves of the page's pyproject.toml, and then the page's commands."""
    (told,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    project = tomllib.loads(told)["project"]
    info = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    group, points = next(iter(project["entry-points"].items()))
    lines = [f"{name} = {module}" for name, module in points.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    registry._installed.cache_clear()
    try:
        for line, shown in console_runs(PAGE):
            check_run(line, shown, capsys)
    finally:
        registry._installed.cache_clear()


def test_without_registering_it_is_unknown(outside) -> None:
    with pytest.raises(UnknownMethodError, match="every-second"):
        get_method("every-second")


def test_a_bare_schedule_costs_what_its_lengths_cost() -> None:
    given = [576] * 2 + [288] * 30
    bare = estimate(MODEL, A100, tokens_per_layer=given, output_tokens=8)
    fastv = estimate(MODEL, A100, method="fastv", output_tokens=8)
    for stage in ("vision", "projector", "prefill", "decode"):
        assert bare.stages[stage].flops == fastv.stages[stage].flops
    assert bare.memory.kv_cache_bytes == fastv.memory.kv_cache_bytes
    assert bare.stages["reduction"].kernels == 0
    assert bare.to_dict()["inputs"]["tokens_per_layer"] == given
    assert fastv.to_dict()["inputs"]["tokens_per_layer"] is None
    array = estimate(MODEL, A100, tokens_per_layer=np.array(given), output_tokens=8)
    assert array.totals == bare.totals
    counted = estimate(MODEL, A100, tokens_per_layer=given, convention="fastv")
    assert (
        counted.totals.flops
        == estimate(MODEL, A100, method="fastv", convention="fastv").totals.flops
    )


def test_a_bare_schedule_may_rise_and_fall() -> None:
    up = estimate(MODEL, A100, tokens_per_layer=[288] * 16 + [576] * 16)
    down = estimate(MODEL, A100, tokens_per_layer=[576] * 16 + [288] * 16)
    assert up.stages["prefill"].flops == down.stages["prefill"].flops


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"tokens_per_layer": [576] * 31}, "has 31 numbers, but the language model has 32"),
        (
            {"tokens_per_layer": [576] * 31 + [577]},
            "577 visual tokens in layer 31, more than the 576",
        ),
        (
            {"tokens_per_layer": [576.0] * 32},
            "layer 0, must be a whole number from 0 to 100000000, not 576.0",
        ),
        ({"tokens_per_layer": [True] * 32}, "layer 0, must be a whole number .* not True"),
        ({"tokens_per_layer": [-1] * 32}, "layer 0, must be a whole number .* not -1"),
        ({"tokens_per_layer": "576"}, "a list of whole numbers"),
        ({"tokens_per_layer": 576}, "a list of whole numbers"),
        ({"tokens_per_layer": [0] * 32, "text_tokens": 0}, "leaves no token"),
        ({"tokens_per_layer": [576] * 32, "method": "fastv"}, "not both"),
        ({"tokens_per_layer": [576] * 32, "keep": 64}, "belongs to a method"),
    ],
)
@pytest.mark.parametrize("convention", ["torch", "fastv"])
def test_schedules_that_cannot_be(asked, message, convention) -> None:
    if convention != "torch" and message == "leaves no token":
        pytest.skip("a convention may count nothing")
    with pytest.raises(InvalidInputError, match=message):
        estimate(MODEL, A100, convention=convention, **asked)
