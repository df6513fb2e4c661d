"""A method from outside the repository in a model: the example of the documentation."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from page_runs import python_blocks

from costmodel import register_method
from costmodel.methods import registry
from hardware_specs.errors import UnsupportedError
from token_reduction import reduce_tokens

EXAMPLE, _, RUN = python_blocks(Path(__file__).parents[3] / "docs" / "add-a-method.md")


@pytest.fixture
def every_second(monkeypatch):
    monkeypatch.setattr(registry, "_outside", {})
    module = ModuleType("every_second")
    exec(EXAMPLE, vars(module))  # noqa: S102  (the page's own code is what is tested)
    return module


def test_it_runs_like_one_of_ours(every_second, llava, cases) -> None:
    register_method(every_second)
    names = {"model": llava, "inputs": cases["llava"].inputs}
    with torch.no_grad():
        exec(RUN, names)  # noqa: S102
    assert names["record"].visual_tokens == (576, 288)


def test_without_a_plug_it_says_so(every_second, llava) -> None:
    register_method(every_second.INFO)
    with (
        pytest.raises(UnsupportedError, match="priced but not run"),
        reduce_tokens(llava, "every-second"),
    ):
        pass
