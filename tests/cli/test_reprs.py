"""What a notebook shows of an answer: a line as text, an escaped table as HTML."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from costmodel import (
    Calibration,
    break_even,
    compare,
    estimate,
    estimate_distribution,
    frontier,
    load_model,
)
from costmodel.models import config_dict
from profiling.reconciling import reconcile


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


def test_other_reprs_are_short() -> None:
    for answer in (
        load_model("llava-1.5-7b"),
        estimate_distribution("llava-1.5-7b", "l4", "prumerge"),
    ):
        assert len(repr(answer)) < 250


def test_names_of_others_are_escaped() -> None:
    evil = "<img src=x onerror=alert(1)>"
    cost = estimate(config_dict("llava-1.5-7b") | {"_name_or_path": evil}, "l4")
    assert cost.inputs["model"] == evil
    assert "<img" not in cost._repr_html_()
    assert "&lt;img" in cost._repr_html_()
