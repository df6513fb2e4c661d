"""The command `import`: what became a record, what did not and why; errors are one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vlm_roofline.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(__file__).parents[1] / "data" / "results"


def test_what_is_left_out_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "alice-secret"
    assert main(["import", str(FOLDER / "optimum_a100.csv"), "--out", str(out)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "left out 1: above_peak" in said
    assert "bitsandbytes" in said
    assert "the clock ran around the model's calls" in said
    assert "-d nvidia-a100-sxm4-80gb" in said
    assert main(["measurements", str(out)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "generation" in shown
    assert "the clock of optimum-benchmark-table ran around" in shown
    assert main(["reconcile", str(out)]) == 0
    assert "generation on NVIDIA A100" in capsys.readouterr().out
    assert main(["measurements", str(out), "--share", str(tmp_path / "shared.zip")]) == 0
    assert "alice-secret" not in capsys.readouterr().out
    page = tmp_path / "report.html"
    assert main(["report", str(out), "--out", str(page), "--no-figures"]) == 0
    assert "alice-secret" not in "".join(path.read_text() for path in out.iterdir())


def test_several_files_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(FOLDER / name) for name in ("optimum_full_report.csv", "lmms_eval_mme.json")]
    told = ["-d", "jetson-agx-thor", "--dtype", "bf16", "--visual-tokens", "850"]
    assert main(["import", *files, "--out", str(tmp_path), *told, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [each["records"] for each in document["files"]] == [5, 1]
    assert "tested on a real file" in document["files"][1]["reader"]
    # What a file says itself goes before what is told.
    assert set(document["folders"].values()) == {
        "nvidia-a100-sxm4-80gb", "nvidia-jetson-agx-thor-128gb",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["no.csv"], "there is no such file"),
        ([str(FOLDER / "README.md")], "results of no tool"),
        ([str(FOLDER / "lmms_eval_mme.json")], "no row became a record"),
        ([str(FOLDER / "optimum_a100.csv"), "--batch-size", "0"], "--batch-size"),
        ([str(FOLDER / "optimum_a100.csv"), "--model", "no-such"], "unknown model"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], word: str, tmp_path: Path, refused: Callable[..., str]
) -> None:
    out = tmp_path / "out"
    assert word in refused("import", *arguments, "--out", out)
    assert not out.exists()


def test_the_frontier_shows_what_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = {
        "model_id": "llava-hf/llava-1.5-7b-hf", "completed": 4, "total_input_tokens": 4 * 616,
        "total_output_tokens": 36, "ttfts": [0.05, 0.06, 0.07], "median_ttft_ms": 60.0,
    }  # fmt: skip
    (tmp_path / "serve.json").write_text(json.dumps(result))
    out = tmp_path / "out"
    told = ["-d", "nvidia-a100-sxm4-80gb", "--dtype", "fp16", "--visual-tokens", "576"]
    assert main(["import", str(tmp_path / "serve.json"), "--out", str(out), *told]) == 0
    capsys.readouterr()
    asked = ["frontier", "llava-1.5-7b", "--benchmark", "pope", "--measured", str(out), "--json"]
    assert main([*asked, "-d", "nvidia-a100-sxm4-80gb"]) == 0
    points = json.loads(capsys.readouterr().out)["points"]
    unreduced = [(point["method"], point["visual_tokens"]) == ("none", 576) for point in points]
    assert any(unreduced)
    assert [point["measured_s"] for point in points] == [
        0.06 if each else None for each in unreduced
    ]
    # Another device's times are not this one's.
    assert main([*asked, "-d", "nvidia-l4"]) == 0
    points = json.loads(capsys.readouterr().out)["points"]
    assert {point["measured_s"] for point in points} == {None}
