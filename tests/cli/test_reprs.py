"""What a notebook shows of an answer: a line as text, an escaped table as HTML."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from costmodel import (
    Calibration,
    audit,
    break_even,
    compare,
    estimate,
    estimate_distribution,
    frontier,
    get_method,
    load_model,
)
from costmodel.models import config_dict
from costmodel.plots import latency_curve
from costmodel.precision.resolving import resolve_precision
from costmodel.questions.sweeps import sweep_chunks
from costmodel.request import Request
from hardware_specs import get_hardware
from profiling import count_model
from profiling.reconciling import reconcile
from profiling.records.storage import iterate_measurements

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


class Balanced(HTMLParser):
    """Check that tags close in their order, and collect what stands between them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag, _attrs) -> None:
        self.open.append(tag)
        self.seen.add(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.words.append(data)


ANSWERS = {
    "estimate": lambda: estimate("llava-1.5-7b", "l4", output_tokens=4),
    "comparison": lambda: compare("llava-1.5-7b", "l4", methods=["fastv"]),
    "frontier": lambda: frontier("llava-1.5-7b", "l4", benchmark="pope"),
    "break-even": lambda: break_even("llava-1.5-7b", "l4"),
    "calibration": lambda: Calibration.load("nvidia-a100-sxm4-80gb"),
}


@pytest.mark.parametrize("name", [*ANSWERS, "reconciliation"])
def test_answers_are_a_line_and_a_table(name: str, request) -> None:
    if name == "reconciliation":
        folder = request.getfixturevalue("folder")
        answer = reconcile([folder / "runs"], folder / "law.json")
    else:
        answer = ANSWERS[name]()
    assert len(repr(answer)) < 250
    assert "\n" not in repr(answer)
    page = Balanced()
    page.feed(answer._repr_html_())
    assert page.open == []
    assert page.seen == {"table", "caption", "thead", "tbody", "tr", "th", "td"}


OTHERS = {
    "model": lambda: load_model("llava-1.5-7b"),
    "distribution": lambda: estimate_distribution("llava-1.5-7b", "l4", "prumerge"),
    "method": lambda: get_method("fitprune", keep=0.4),
    "request": lambda: Request(load_model("qwen2-vl-7b"), get_hardware("h100"), keep=0.1, method="fastv"),
    "precision": lambda: resolve_precision("awq", load_model("qwen2-vl-7b"), get_hardware("h100")),
    "curve": lambda: latency_curve("llava-1.5-7b", "l4"),
    "measurement": lambda: next(iterate_measurements(ROOT / "measurements"))[1],
    "count": lambda: count_model("llava-1.5-7b", scale="layers=1,width=1/8", fvcore=False),
    "audit": lambda: audit(ROOT / "tests/costmodel/audit/tables/vica_table1.csv"),
    "chunk": lambda: next(sweep_chunks("llava-1.5-7b", "l4", stage_columns=True)),
}  # fmt: skip


def _inside(value: Any, depth: int) -> Iterator[Any]:
    """Yield a result, and what its fields and properties hand on."""
    yield value
    names = [each.name for each in fields(value)] if is_dataclass(value) else []
    names += getattr(value, "_fields", [])
    names += [
        n for n, each in vars(type(value)).items() if isinstance(each, (property, cached_property))
    ]
    for name in names if depth else ():
        held = getattr(value, name)
        several = isinstance(held, tuple) and held and not hasattr(held, "_fields")
        first = held[0] if several else held
        if is_dataclass(first) or hasattr(first, "_fields"):
            yield from _inside(first, depth - 1)
        elif type(first).__name__ == "Stages":
            yield first
            yield first["prefill"]


@pytest.mark.parametrize("name", [*ANSWERS, *OTHERS])
def test_everything_that_is_handed_on_has_a_short_repr(name: str) -> None:
    answer = (ANSWERS | OTHERS)[name]()
    for each in _inside(answer, 2):
        assert len(repr(each)) < 250, type(each)
        assert "\n" not in repr(each)


def test_names_of_others_are_escaped() -> None:
    evil = "<img src=x onerror=alert(1)>"
    cost = estimate(config_dict("llava-1.5-7b") | {"_name_or_path": evil}, "l4")
    assert cost.inputs["model"] == evil
    assert "<img" not in cost._repr_html_()
    assert "&lt;img" in cost._repr_html_()
