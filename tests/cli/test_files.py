"""Commands that read or write a file: what cannot be is one line and exit code 2, old files stay."""

from __future__ import annotations

import os
import resource
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from profiling.records.storage import write_measurement
from vlm_roofline.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

A100 = "nvidia-a100-sxm4-80gb"
MODEL = "llava-1.5-7b"

#: Command -> the ending of its file and its arguments; {out} is the file, {runs} and {law} measured
#: records and their calibration.
WRITERS = {
    "sweep to CSV": (".csv", ["sweep", MODEL, "-d", A100, "--out", "{out}"]),
    "sweep to Parquet": (".parquet", ["sweep", MODEL, "-d", A100, "--out", "{out}"]),
    "plot": (".png", ["plot", "roofline", MODEL, "-d", A100, "--out", "{out}"]),
    "plot memory": (".svg", ["plot", "memory", MODEL, "-d", A100, "--out", "{out}"]),
    "frontier": (".png", ["frontier", MODEL, "-d", A100, "--benchmark", "pope", "--plot", "{out}"]),
    "reproduce": (".csv", ["reproduce", "fastv", "--out", "{out}"]),
    "reconcile": (
        ".csv",
        ["reconcile", "{runs}", "--calibration", "{law}", "--csv", "{out}"],
    ),
    "report": (
        ".html",
        ["report", "{runs}", "--calibration", "{law}", "--no-figures", "--out", "{out}"],
    ),
}

READERS = {
    "device": (".yaml", ["specs", "show", "{file}"]),
    "device of an estimate": (".yaml", ["estimate", MODEL, "-d", "{file}"]),
    "model": (".json", ["models", "show", "{file}"]),
    "calibration": (".json", ["estimate", MODEL, "-d", A100, "--calibration", "{file}"]),
    "calibration of a sweep": (".json", ["sweep", MODEL, "-d", A100, "--calibration", "{file}"]),
    "records": (".json", ["measurements", "{file}"]),
    "records to reconcile": (".json", ["reconcile", "{file}"]),
    "records to report": (".json", ["report", "{file}", "--out", "x.html"]),
    "table": (".csv", ["calibrate", "{file}", "-d", A100, "--out", "x.json"]),
    "table in Parquet": (".parquet", ["calibrate", "{file}", "-d", A100, "--out", "x.json"]),
    "table in JSON": (".json", ["calibrate", "{file}", "-d", A100, "--out", "x.json"]),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, lab) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("lab")
    law = lab.law_of()
    for tokens in (1, 576):
        record = lab.measured(lab.configuration(visual_tokens=tokens), calibration=law)
        (folder / "runs").mkdir(exist_ok=True)
        write_measurement(record, folder / "runs")
    law.save(folder / "law.json")
    return {"runs": str(folder / "runs"), "law": str(folder / "law.json")}


@pytest.mark.parametrize("command", WRITERS)
def test_a_writer_replaces_whole_files_only(
    command: str, tmp_path: Path, places: dict[str, str], refused: Callable[..., str]
) -> None:
    ending, words = WRITERS[command]
    real = tmp_path / f"real{ending}"
    real.write_text("old")
    link = tmp_path / f"link{ending}"
    link.symlink_to(real)

    def arguments(out: Path) -> list[str]:
        return [word.format(out=out, **places) for word in words]

    (tmp_path / f"folder{ending}").mkdir()
    for out in (tmp_path / "no" / f"x{ending}", tmp_path / f"folder{ending}",
                tmp_path / f"{'x' * 300}{ending}"):  # fmt: skip
        assert "cannot write" in refused(*arguments(out))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, hard))
    try:
        assert f"link{ending}" in refused(*arguments(link))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert real.read_text() == "old"
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted([f"folder{ending}", f"link{ending}", f"real{ending}"])
    assert main(arguments(link)) == 0
    assert link.is_symlink()
    assert real.read_bytes() != b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def _deep(path: Path) -> None:
    path.write_bytes(b'{"a":' * 100_000)


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


ENEMIES: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "endless": _endless,
    "deep": _deep,
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 40),
    "circle": lambda path: path.symlink_to(path),
}


@pytest.mark.parametrize("enemy", ENEMIES)
@pytest.mark.parametrize("command", READERS)
def test_a_reader_refuses_what_is_no_file_of_its_kind(
    command: str,
    enemy: str,
    tmp_path: Path,
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    ending, words = READERS[command]
    path = tmp_path / f"enemy{ending}"
    ENEMIES[enemy](path)
    refused(*(word.format(file=path) for word in words))
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("command", READERS)
def test_names_that_no_file_can_have(
    command: str, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ending, words = READERS[command]
    for name in ("x" * 300, "~nobody-has-this-name/x", "\udc80"):
        refused(*(word.format(file=name + ending) for word in words))


@pytest.mark.parametrize(
    "words",
    [
        ["sweep", MODEL, "-d", A100, "--parts"],
        ["estimate", MODEL, "-d", A100, "--image"],
        ["profile", MODEL, "--out"],
        ["measurements"],
    ],
)
def test_an_empty_path_is_not_the_current_folder(
    words: list[str],
    tmp_path: Path,
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "an empty path" in refused(*words, "")
    assert not list(tmp_path.iterdir())


def test_a_damaged_record_and_op_profile_are_named_and_the_report_is_written(
    tmp_path: Path, places: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    for path in Path(places["runs"]).iterdir():
        (runs / path.name).write_bytes(path.read_bytes())
    for name in ("a.json", "b_ops.json"):
        _deep(runs / name)
    os.mkfifo(runs / "c_ops.json")
    out = tmp_path / "report.html"
    command = ["report", str(runs), "--calibration", places["law"], "--out", str(out)]
    assert main([*command, "--no-figures"]) == 0
    said = capsys.readouterr().err
    assert out.read_text().startswith("<!DOCTYPE html>")
    for name in ("a.json", "b_ops.json", "c_ops.json"):
        assert name in said


def test_text_of_others_is_only_text(
    tmp_path: Path, refused: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Markup of the table builder and commands to the terminal, in a name that is printed."""
    path = tmp_path / "[red]x[-red][-y]\x1b]0;z\x07.json"
    path.write_text("{}")
    assert "\x1b" not in refused("models", "show", path)
    out = tmp_path / "[bold]x[-nothing]\x1b.csv"
    assert main(["reproduce", "fastv", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "[bold]x[-nothing]" in printed.replace("\n", "")


def test_a_record_may_hold_any_text(
    tmp_path: Path, lab, capsys: pytest.CaptureFixture[str]
) -> None:
    record = lab.measured(lab.configuration(visual_tokens=1), calibration=lab.law_of())
    poisoned = replace(record.configuration, model="[/x]\x1b[2J", method="[red]y[/red]")
    write_measurement(replace(record, configuration=poisoned), tmp_path)
    assert main(["measurements", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "[/x]" in printed
    assert "[red]y[/red]" in printed
