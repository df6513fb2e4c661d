"""The commands `profile`, `count` and `measurements`: exit codes, one clear line, no traceback."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch

from profiling.records.samples import order_statistic
from profiling.records.storage import read_measurements
from vlm_roofline.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

QUICK = ["--device", "cpu", "--dtype", "fp32", "--text-tokens", "3", "--max-time", "0.02",
         "--rounds", "1"]  # fmt: skip


def _words(source: str, out: Path, *arguments: str) -> list[str]:
    return ["profile", source, "--out", str(out), *QUICK, *arguments]


def _profile(source: str, out: Path, *arguments: str) -> int:
    return main(_words(source, out, *arguments))


def test_a_campaign_from_the_command_line(
    tiny_source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _profile(tiny_source, tmp_path, "--visual-tokens", "16,4", "--batch-size", "1,2") == 0
    printed = capsys.readouterr().out
    assert "4 records in" in printed
    assert "first token" in printed
    records = read_measurements(tmp_path)
    assert {(r.configuration.visual_tokens, r.configuration.batch_size) for r in records} == {
        (16, 1), (16, 2), (4, 1), (4, 2),
    }  # fmt: skip
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    assert (
        _profile(
            tiny_source, tmp_path, "--visual-tokens", "16,4,1", "--batch-size", "1,2", "--json"
        )
        == 0
    )
    captured = capsys.readouterr()
    assert "4 of 6 points are measured already" in captured.err
    document = json.loads(captured.out)
    assert document["points"] == 6
    assert {row["stage"] for row in document["rows"]} == {"vision", "projector", "prefill", "total"}
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_records_are_shown_again(
    tiny_source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _profile(tiny_source, tmp_path, "--visual-tokens", "4") == 0
    (tmp_path / "broken.json").write_text("{")
    capsys.readouterr()
    assert main(["measurements", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert "eager" in shown.out
    assert "broken.json" in shown.err
    main(["measurements", str(tmp_path), "--csv"])
    assert capsys.readouterr().out.startswith("model,dtype,method")
    main(["measurements", str(tmp_path), "--json"])
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 4


def test_two_formats_at_once_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["measurements", str(tmp_path), "--csv", "--json"]) == 2
    assert "two formats" in json.loads(capsys.readouterr().out)["error"]["message"]


BAD = {
    "unknown model": (["no-such-model"], "no-such-model"),
    "unknown method": (["--method", "magic"], "magic"),
    "unknown dtype": (["--dtype", "fp7"], "fp7"),
    "unknown mode": (["--mode", "warp"], "warp"),
    "unknown device": (["--device", "tpu"], "tpu"),
    "a dtype without kernels": (["--dtype", "int4"], "no CPU kernels"),
    "graphs on a CPU": (["--mode", "cuda-graph"], "needs a CUDA device"),
    "no number": (["--visual-tokens", "many"], "many"),
    "an option in its own words": (["--batch-size", "0"], "--batch-size must be"),
    "a seed below 0": (["--seed", "-1"], "seed must be a whole number from 0 to"),
    "bad noise": (["--noise", "2"], "noise"),
    "bad time": (["--max-time", "0"], "--max-time"),
    "bad keep": (["--method", "divprune", "--keep", "most"], "most"),
    "two scales": (["--scale", "layers=zero"], "layers"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_code_2(
    case: str, tiny_source: str, tmp_path: Path, refused: Callable[..., str]
) -> None:
    arguments, word = BAD[case]
    source = arguments[0] if case == "unknown model" else tiny_source
    rest = [] if case == "unknown model" else arguments
    assert word in refused(*_words(source, tmp_path / "out", *rest))
    assert not list(tmp_path.rglob("*.json"))


def test_a_method_without_visual_tokens_is_refused(
    tiny_text_source: str, tmp_path: Path, refused: Callable[..., str]
) -> None:
    assert "has none" in refused(*_words(tiny_text_source, tmp_path, "--method", "divprune"))


def test_no_cuda_says_what_to_do(
    tiny_source: str, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "--device cpu" in refused("profile", tiny_source, "--out", tmp_path)


@pytest.mark.parametrize("command", ["profile", "count"])
def test_without_torch_the_extra_is_named(command: str, tiny_source: str, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "for name in ('torch', 'transformers'): sys.modules[name] = None\n"
        "from vlm_roofline.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    arguments = [command, tiny_source]
    if command == "profile":
        arguments += ["--out", str(tmp_path), *QUICK]
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert "pip install 'vlm-roofline[profile]'" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_an_output_that_is_a_file_is_refused(
    tiny_source: str, tmp_path: Path, refused: Callable[..., str]
) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot write" in refused(*_words(tiny_source, tmp_path / "file" / "folder"))


@pytest.mark.parametrize(
    ("number", "word"), [(errno.EROFS, "read-only"), (errno.ENOSPC, "disk is full")]
)
def test_a_place_that_cannot_be_written_is_refused(
    number: int, word: str, tiny_source: str, tmp_path: Path,
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from hardware_specs.files import writing

    def refuse(*_args: Any, **_kwargs: Any) -> Any:
        raise OSError(number, os.strerror(number))

    where = "mkdir" if number == errno.EROFS else "fsync"
    monkeypatch.setattr(writing.Path if where == "mkdir" else writing.os, where, refuse)
    error = refused(*_words(tiny_source, tmp_path / "out"))
    monkeypatch.undo()
    assert word in error
    assert not list(tmp_path.rglob("*.json"))


def test_ctrl_c_is_exit_code_130(
    tiny_source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from profiling.measuring import point

    def interrupt(*_args: Any, **_kwargs: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(point, "take_samples", interrupt)
    assert _profile(tiny_source, tmp_path) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_count_prints_three_counters(tiny_source: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["count", tiny_source, "--visual-tokens", "16"]) == 0
    printed = capsys.readouterr().out
    assert "agree to the unit" in printed
    assert "fvcore x 2" in printed
    assert main(["count", tiny_source, "--visual-tokens", "16", "--no-fvcore", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["total_flops"]["torch"] == document["total_flops"]["cost_model"] > 0
    assert document["total_flops"]["fvcore"] is None


def test_count_of_an_unknown_model_is_exit_code_2(refused: Callable[..., str]) -> None:
    assert "no-such-model" in refused("count", "no-such-model")


def test_a_profiler_pass_lies_beside_the_records(
    tiny_source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--visual-tokens", "4", "--traces"]
    assert _profile(tiny_source, tmp_path, *arguments) == 0
    (ops,) = tmp_path.glob("*_ops.json")
    (trace,) = tmp_path.glob("*_trace.json.gz")
    document = json.loads(ops.read_text())
    assert document["kind"] == "op-profile"
    assert {"q_proj", "attention", "lm_head"} <= {row["name"] for row in document["rows"]}
    written = ops.stat().st_mtime_ns, trace.stat().st_mtime_ns
    assert _profile(tiny_source, tmp_path, *arguments) == 0
    assert (ops.stat().st_mtime_ns, trace.stat().st_mtime_ns) == written
    assert len(read_measurements(tmp_path)) == 1
    # A point that cannot run has a record that says so, and no pass.
    arguments = ["--visual-tokens", "4,99", "--images", "1", "--kernels"]
    assert _profile(tiny_source, tmp_path / "some", *arguments) == 0
    assert "1 of them not ok" in capsys.readouterr().out
    assert len(list(tmp_path.glob("some/*_ops.json"))) == 1


def test_without_a_folder_nothing_is_kept(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [
        "profile", "llava-1.5-7b", "--device", "cpu", "--dtype", "fp32", "--scale",
        "layers=1,width=1/8", "--visual-tokens", "64", "--rounds", "1", "--max-time", "0.2",
    ]  # fmt: skip
    assert main(arguments) == 0
    assert "1 records not kept; --out DIR keeps them" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    assert main([*arguments, "--kernels"]) == 2
    assert "say where with --out" in capsys.readouterr().err


def test_the_table_compares_with_the_unreduced_run(
    tiny_source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--method", "none,divprune", "--keep", "4", "--noise", "0.0001"]
    assert _profile(tiny_source, tmp_path / "a", "--visual-tokens", "16", *arguments) == 0
    printed = capsys.readouterr().out
    middle = {
        record.configuration.method: order_statistic(record.stages["total"].event_s, 0.5)
        for record in read_measurements(tmp_path / "a")
    }
    assert f"{middle['none'] / middle['divprune']:.2f}x" in printed
    assert "speed-up: first token" in printed
    assert "!: when the time was up" in printed
    # Eight tokens without a method are not what a method that starts from sixteen is held against.
    assert _profile(tiny_source, tmp_path / "b", "--visual-tokens", "8", *arguments) == 0
    assert "speed-up: first token" not in capsys.readouterr().out


def test_a_methods_settings_are_run(
    tiny_source: str, tmp_path: Path, refused: Callable[..., str]
) -> None:
    settings = ["--method", "none,fastv,tome", "--layer", "1", "--option", "r=1"]
    assert _profile(tiny_source, tmp_path, *settings) == 0
    found = {record.configuration.method for record in read_measurements(tmp_path)}
    assert found == {"none", "fastv(layer=1)", "tome(r=1)"}
    slip = ["--method", "tome", "--option", "rr=1"]
    assert "did you mean r?" in refused(*_words(tiny_source, tmp_path, *slip))
