"""The registry: names, defaults, and one clear error for whatever a method does not take."""

from __future__ import annotations

import subprocess
import sys
from typing import get_args

import pytest

from costmodel.methods.info import Place
from hardware_specs.errors import InvalidInputError, UnknownMethodError
from token_reduction import get_method, list_methods, method_info

CORE = {
    *("prumerge", "prumerge+", "divprune", "fastv", "vtw", "fitprune", "tome"),
    *("ats", "evit", "crossget", "sequential", "spatial", "m3"),
}


def test_the_core_methods_are_there() -> None:
    assert set(list_methods()) >= CORE


@pytest.mark.parametrize("name", list_methods())
def test_every_method_describes_itself(name) -> None:
    method = get_method(name)
    info = method_info(name)
    assert method.place in get_args(Place)
    assert (method.layer is not None) <= info.takes_layer
    assert info.source
    assert info.summary
    assert info.variants[0] == method.variant == "program"
    assert set(method.options) == {option.name for option in info.options}
    for variant in info.variants:
        assert get_method(name, variant=variant).variant == variant


@pytest.mark.parametrize("name", list_methods())
def test_keeping_everything_can_always_be_asked_for(name) -> None:
    assert get_method(name, keep=1.0).keeps_everything
    assert not get_method(name, keep=None).keeps_everything or method_info(name).default_keep == 1.0


def test_defaults_are_the_published_ones() -> None:
    assert get_method("divprune").keep == 0.098
    assert get_method("divprune").count(576) == 56
    assert get_method("prumerge").keep is None
    assert get_method("prumerge").count(576) is None
    assert (get_method("fastv").keep, get_method("fastv").layer) == (0.5, 2)
    assert get_method("vtw").layer is None  # depends on the model's depth
    assert get_method("evit").count(576) == 404
    assert get_method("evit").options["layers"] == (3, 6, 9)


def test_a_keep_of_one_token_is_not_everything() -> None:
    assert not get_method("divprune", keep=1).keeps_everything


def test_rounding_is_the_methods_own() -> None:
    assert get_method("prumerge", keep=0.0999).count(576) == 57  # 57.54
    assert get_method("fastv", keep=0.0999).count(576) == 58
    assert get_method("evit", keep=0.0972).count(576) == 56  # 55.99
    assert get_method("fitprune", keep=0.4).count(576) is None  # a share of FLOPs


def test_needs_follow_the_variant() -> None:
    assert get_method("fastv").info.needs == {"llm_attention_row"}
    assert get_method("fastv", variant="paper").info.needs == {"llm_attention_full"}


def test_divprune_at_a_layer_acts_there() -> None:
    assert get_method("divprune", layer=8).place == "llm-layer"


def test_unknown_method_names_near_ones() -> None:
    with pytest.raises(UnknownMethodError, match="did you mean divprune"):
        get_method("dviprune")
    with pytest.raises(UnknownMethodError):
        get_method(["divprune"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("prumerge", {"neighbors": 16}, "neighbours"),
        ("sequential", {"grid": (2, 2)}, "no options"),
        ("prumerge", {"neighbours": -1}, ">= 0"),
        ("prumerge", {"neighbours": True}, ">= 0"),
        ("evit", {"layers": (3, -1)}, "list of layers"),
        ("spatial", {"grid": (0, 4)}, "rows, columns"),
        ("divprune", {"compute_dtype": "int8"}, "float32"),
        ("tome", {"inflect": 3}, r"\[-1, 1\]"),
        ("prumerge", {"layer": 2}, "no layer"),
        ("fastv", {"layer": -1}, "counted from 0"),
        ("fastv", {"layer": True}, "counted from 0"),
        ("fastv", {"variant": "mine"}, "program, paper"),
        ("divprune", {"variant": "paper"}, "program"),
        ("divprune", {"keep": True}, "bool"),
        ("divprune", {"keep": 64.0}, "int"),
        ("vtw", {"keep": 0.5}, "no keep"),
        ("fitprune", {"keep": 64}, "ratio"),
    ],
)
def test_what_a_method_does_not_take(name, arguments, message) -> None:
    with pytest.raises(InvalidInputError, match=message):
        get_method(name, **arguments)


def test_options_may_come_as_text() -> None:
    assert get_method("evit", layers="4,8").options["layers"] == (4, 8)
    assert get_method("spatial", grid="5x8").options["grid"] == (5, 8)
    assert get_method("tome", r="8", inflect="-1").options["r"] == 8
    assert get_method("evit", fuse="false").options["fuse"] is False
    assert get_method("divprune", compute_dtype="none").options["compute_dtype"] is None


def test_options_cannot_be_changed_afterwards() -> None:
    with pytest.raises(TypeError):
        get_method("prumerge").options["neighbours"] = 3  # type: ignore[index]


def test_the_registry_needs_no_torch() -> None:
    code = (
        "import sys, token_reduction as t; t.get_method('prumerge+', keep=0.1).count(576); "
        "heavy = {'torch', 'transformers', 'pandas', 'matplotlib'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
