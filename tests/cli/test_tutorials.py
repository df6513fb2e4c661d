"""Tutorials and short pages: every command runs, in order in one folder, and prints what is shown of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from page_runs import console_runs, run_page

from costmodel import estimate
from costmodel.conventions import list_conventions
from costmodel.models import config_dict
from vlm_roofline.cli import plot

DOCS = Path(__file__).parents[2] / "docs"
PAGES = (
    "price-your-model",
    "comparing",
    "reproduce-a-table",
    "conventions",
    "boundaries",
    "which-plan",
    "methods",
    "questions",
    "sweeps",
)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_prints_what_it_shows(name: str, tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "my-model").mkdir()
    (tmp_path / "my-model" / "config.json").write_text(json.dumps(config_dict("qwen2.5-vl-7b")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    run_page(DOCS / f"{name}.md", tmp_path, capsys)


@pytest.mark.parametrize("name", ["questions", "sweeps"])
def test_every_command_has_its_answer(name: str) -> None:
    assert all(shown for _, shown in console_runs(DOCS / f"{name}.md"))


def test_every_question_is_there_once() -> None:
    text = (DOCS / "questions.md").read_text("utf-8")
    numbers = re.findall(r"^\*\*(\d+)\. ", text, flags=re.MULTILINE)
    assert [int(number) for number in numbers] == list(range(1, 25))


def test_conventions_count_what_their_table_says() -> None:
    text = (DOCS / "conventions.md").read_text("utf-8").split("| `--convention` |")[1]
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| `")]
    told = {name: row[-1].strip() for row in rows for name in re.findall(r"`(.*?)`", row[0])}
    assert told.pop("torch") == "8.584 T"
    assert set(told) == set(list_conventions())
    for name in list_conventions():
        device = "nvidia_V100" if name.startswith("llmviewer") else "nvidia-v100-sxm2-16gb"
        cost = estimate("llava-1.5-7b", device, convention=name)
        assert told[name] == f"{cost.totals.flops / 1e12:.3f} T"


@pytest.mark.parametrize("plan", ["cuda-graph", "fused"])
def test_the_worked_case_lies_in_the_intervals(plan: str) -> None:
    """SparseVLM's 57.82 ms, as docs/which-plan.md says."""
    totals = estimate(
        "llava-1.5-7b", "nvidia-a100-sxm4-80gb", execution=plan, text_tokens=119
    ).totals
    assert totals.time_low_s <= 0.05782 <= totals.time_high_s


def test_the_gallery_has_every_picture() -> None:
    """Every picture of docs/images, and every command that draws one."""
    text = (DOCS / "gallery.md").read_text("utf-8")
    shown = re.findall(r"!\[[^\]]+\]\(images/(.*?)\)", text)
    assert sorted(shown) == sorted(path.name for path in (DOCS / "images").iterdir())
    kinds = [command.name for command in plot.group.registered_commands]
    assert kinds
    assert all(f"$ vlm-roofline plot {kind} " in text for kind in kinds)
