"""The command `campaign`: its steps on the CPU, one clear line for bad input, and JSON."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

import profiling.device_campaign as campaign
from vlm_roofline.cli import main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("step", campaign.STEPS)
def test_a_step_without_time_leaves_its_files(
    tiny_source: str, known_cpu: Any, tmp_path: Path, capsys: Any, step: str
) -> None:
    """The budget began when the caller says: here long ago."""
    if step != "more":
        (tmp_path / "ops.jsonl").write_text("")
    arguments = ["campaign", step, "--device", "cpu", "--model", tiny_source, "--budget", "1",
                 "--started", str(time.time() - 60), "--out", str(tmp_path)]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(campaign, "_measure_ops", lambda _plan, _folder, seconds: seconds)
        assert main([*arguments, "--json"]) == 1
    shown = capsys.readouterr()
    answer = json.loads(shown.out)
    assert (answer["out"], answer["step"]) == (str(tmp_path), step)
    (check,) = answer["checks"]
    assert not check["ok"]
    assert "environment" in shown.err
    assert json.loads((tmp_path / "checks.json").read_text())["rows"] == answer["checks"]


def test_failed_checks_are_named_and_the_exit_code_is_1(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def run(plan: Any, *_args: Any, **_kwargs: Any) -> list[dict[str, Any]]:
        asked.append(plan)
        return [
            {"check": "FLOPs of prefill", "key": "a", "ok": False, "found": [1, 2]},
            {"check": "runs", "key": "a", "ok": True, "found": "ok"},
        ]

    monkeypatch.setattr("profiling.run_device_campaign", run)
    assert main(["campaign", "core", "--device", "cuda", "--out", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "not as it should be: FLOPs of prefill: a: [1, 2]" in out
    assert "1 of 2 checks hold" in out
    assert (asked[0].step, asked[0].dtype, asked[0].budget_s) == ("core", "bf16", None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["everything"], "none of smoke, core, more"), (["smoke", "--budget", "-1"], "--budget must be"),
     (["smoke", "--started", "1e12"], "--started lies in the past"),
     (["smoke", "--device", "tpu"], "not one of cuda"),
     (["smoke", "--device", "cpu", "--model", "llava-1.5-7c"], "llava-1.5-7c"),
     (["smoke", "--device", "cpu", "--scale", "layers=x"], "scale layers=x must be"),
     (["smoke", "--device", "cpu", "--dtype", "int3"], "unknown precision 'int3'")],
)  # fmt: skip
def test_bad_input_is_one_line(
    tmp_path: Path, refused: Any, arguments: list[str], said: str
) -> None:
    assert said in refused("campaign", *arguments, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
