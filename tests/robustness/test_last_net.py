"""What the command line does with what the machine refuses it, with closed streams and with poisoned text."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hardware_specs.errors import InvalidInputError, VlmRooflineError
from vlm_roofline import cli

A100 = "nvidia-a100-sxm4-80gb"
ESTIMATE = [sys.executable, "-m", "vlm_roofline", "estimate", "llava-1.5-7b", "-d", A100]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device"), "No space left"),
        (MemoryError(), "out of memory"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
        (InvalidInputError("a\n\x1b[2Jb [red]c[/red]"), r"a \x1b[2Jb [red]c[/red]"),
        (InvalidInputError("x" * 100_000), "..."),
        (FileNotFoundError(2, "No such file", "\udcff\x1b]0;x\x07"), "No such file"),
    ],
)
def test_one_line_and_exit_2(error, words, monkeypatch, capsys):
    def raising(_):
        raise error

    monkeypatch.setattr(cli, "build_app", raising)
    assert cli.main(["estimate"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert len(captured.err) < 2100
    assert words in captured.err
    assert "\x1b" not in captured.err


def test_a_fault_of_the_program_is_still_a_traceback(monkeypatch):
    def raising(_):
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "build_app", raising)
    with pytest.raises(ZeroDivisionError):
        cli.main(["estimate"])


def test_numbers_of_too_many_digits(capsys):
    assert cli.main(["sweep", "llava-1.5-7b", "-d", A100, "--visual-tokens", "9" * 5000]) == 2
    assert capsys.readouterr().err == "error: a number has too many digits\n"


def test_usage_errors_are_one_line_too(capsys):
    assert cli.main(["estimate", "--nosuch"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert cli.main([]) == 2


@pytest.mark.parametrize("json", [[], ["--json"]])
def test_a_closed_stdout_is_quiet_and_a_full_one_is_one_line(json):
    closed = subprocess.run(
        ["/bin/sh", "-c", '"$@" >&-', "sh", *ESTIMATE, *json],
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert (closed.returncode, closed.stderr) == (0, "")
    if Path("/dev/full").exists():
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [*ESTIMATE, *json], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
            )
        assert done.returncode == 2
        assert done.stderr == "error: [Errno 28] No space left on device\n"


def test_a_reader_that_leaves_ends_it_quietly():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*ESTIMATE, "--json"], stdout=write, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(write)
    assert done.stderr == ""
    assert done.returncode in (0, 1)


def test_poisoned_text_reaches_no_terminal(tmp_path, capsys):
    from fuzzing.doors_files import configs

    folder = tmp_path / "[red]x[bold] \x1b[2J"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(configs()[0]))
    for command in (["estimate"], ["sweep"], ["models", "show"]):
        words = [*command, str(folder)] + (["-d", A100] if command[0] != "models" else [])
        assert cli.main(words) == 0
        captured = capsys.readouterr()
        assert "\x1b" not in captured.out + captured.err
        assert "[red]x[bold]" in captured.out


def test_every_error_is_bounded():
    assert len(str(VlmRooflineError("y" * 10**6))) == 2000
