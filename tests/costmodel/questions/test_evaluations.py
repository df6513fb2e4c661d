"""Scores of one's own in `frontier`: results of lmms-eval, joined with costs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from fake_lmms_eval import written

from costmodel import estimate, frontier
from hardware_specs.errors import InvalidFileError, InvalidInputError, UnknownNameError
from vlm_roofline.cli import main

if TYPE_CHECKING:
    from pathlib import Path

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"
BASE = "pretrained=llava-hf/llava-1.5-7b-hf"
RUNS = {
    BASE: 0.8,
    f"{BASE},method=divprune,keep=64": 0.76,
    f"{BASE},method=fastv,keep=50%,layer=2": 0.78,
}


def _write(folder: Path, name: str, called: Any, score: float, **changes: Any) -> None:
    (folder / f"{name}_results.json").write_text(
        json.dumps(written("vlm_roofline", called, score) | changes)
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, (called, score) in enumerate(RUNS.items()):
        _write(tmp_path, f"20261129_{number}", called, score)
    return tmp_path


def test_scores_are_joined_with_costs(folder: Path) -> None:
    answer = frontier(MODEL, A100, benchmark="stub", scores=str(folder))
    points = {point.method: point for point in answer.points}
    assert {name: point.score for name, point in points.items()} == {
        "none": 0.8,
        "divprune": 0.76,
        "fastv": 0.78,
    }
    assert points["divprune"].retained == pytest.approx(0.95)
    cost = estimate(MODEL, A100, method="fastv", keep=0.5, layer=2)
    assert points["fastv"].time_s == cost.totals.time_s
    assert points["divprune"].pareto
    assert answer.best is not None
    assert answer.best.method == "none"
    quick = frontier(
        MODEL,
        A100,
        benchmark="stub:exact_match",
        scores=[folder],
        latency_s=points["divprune"].time_s,
    )
    assert quick.best is not None
    assert quick.best.method == "divprune"


def test_the_command_line_shows_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["frontier", MODEL, "-d", A100, "--benchmark", "stub", "--scores", str(folder)]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "divprune 64" in shown
    assert "a score is: exact_match,none of lmms-eval" in shown
    assert "evaluated by the reader of this" in shown


def test_what_is_no_such_evaluation_is_refused(folder: Path, tmp_path: Path) -> None:
    def asked(benchmark: str = "stub") -> None:
        frontier(MODEL, A100, benchmark=benchmark, scores=[folder])

    with pytest.raises(UnknownNameError, match="unknown task 'mme'"):
        asked("mme")
    with pytest.raises(UnknownNameError, match="unknown metric 'f1'"):
        asked("stub:f1")
    _write(folder, "other", "pretrained=other", 0.5)
    with pytest.raises(InvalidInputError, match="nothing to compare"):
        asked()
    _write(folder, "other", BASE, 0.5, higher_is_better={"stub": {"exact_match": False}})
    with pytest.raises(InvalidInputError, match="less is better"):
        asked()
    _write(folder, "other", BASE, 0.5, config={"model": "llava_hf", "model_args": BASE})
    with pytest.raises(InvalidFileError, match="the model is 'llava_hf'"):
        asked()
    _write(folder, "other", BASE, 0.5, config=[])
    with pytest.raises(InvalidFileError, match="no results of lmms-eval"):
        asked()
    _write(folder, "other", BASE, "high")  # type: ignore[arg-type]
    with pytest.raises(InvalidFileError, match="is no number"):
        asked()
    for setting in ("keep=few", "keep=64,layer=third"):
        _write(folder, "other", f"{BASE},method=fastv,{setting}", 0.5)
        with pytest.raises(InvalidFileError, match="is no number"):
            asked()
    assert main(["frontier", MODEL, "-d", A100, "--scores", str(folder)]) == 2
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InvalidInputError, match=r"no \*_results.json"):
        frontier(MODEL, A100, benchmark="stub", scores=[empty])
