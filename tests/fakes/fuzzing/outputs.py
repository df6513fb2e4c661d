"""Every command that writes: its words, run in a child that can be killed, starved of disk, or raced."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from fuzzing.doors_files import A100, _table, records

if TYPE_CHECKING:
    from collections.abc import Callable

LLAVA = ("llava-1.5-7b", "-d", A100)
#: command -> the words that write `place`; `inputs` holds what they read.
WRITERS: dict[str, tuple[str, Callable[[Path, Path], list[str]]]] = {
    "sweep-csv": ("t.csv", lambda _, place: _sweep(place)),
    "sweep-parquet": ("t.parquet", lambda _, place: _sweep(place)),
    "calibrate": ("c.json", lambda inputs, place: _calibrate(inputs, place)),
    "reproduce": ("r.csv", lambda _, place: ["reproduce", "fastv", "--out", str(place)]),
    "plot": ("p.svg", lambda _, place: ["plot", "roofline", *LLAVA, "--out", str(place)]),
    "frontier": (
        "f.png",
        lambda _, place: ["frontier", *LLAVA, "--benchmark", "pope", "--plot", str(place)],
    ),
    "reconcile": (
        "r.csv",
        lambda inputs, place: ["reconcile", _records(inputs), "--csv", str(place)],
    ),
    "report": ("r.html", lambda inputs, place: ["report", _records(inputs), "--out", str(place)]),
}


def _calibrate(inputs: Path, place: Path) -> list[str]:
    return ["calibrate", str(inputs / "ops.csv"), "-d", A100, "--out", str(place)]


def _records(inputs: Path) -> str:
    return str(inputs / "records")


def _sweep(place: Path) -> list[str]:
    return [
        "sweep",
        *LLAVA,
        "--visual-tokens",
        "1:576",
        "--batch-size",
        "1:64",
        "--out",
        str(place),
    ]


def prepared(folder: Path) -> Path:
    """Write what the commands read."""
    _table().head(36).to_csv(folder / "ops.csv", index=False)
    home = folder / "records"
    home.mkdir()
    for number, record in enumerate(records()):
        (home / f"{number}.json").write_text(json.dumps(record))
    return folder


def child(argv: list[str], *, most_bytes: int | None = None, say: Path | None = None) -> int:
    """Run a command in a fork and return the process: its output goes nowhere, or to `say`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # threads of numpy's: the child uses none of them
        pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        target = os.open(say or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(target, 1)
        os.dup2(target, 2)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - pytest has its own
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        from vlm_roofline.cli.console import _consoles

        _consoles.cache_clear()
        if most_bytes is not None:
            # A write beyond the limit fails as on a full disk, instead of killing the process.
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
        from vlm_roofline.cli import main

        code = main(argv)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def waited(pid: int, seconds: float = 60.0, late: int = 0) -> int:
    """Wait for a child; return its exit code, negative for a signal.

    Args:
        pid: the child.
        seconds: how long.
        late: the signal that it gets after that, as expected; 0 where it is a hang.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, late or signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if late:
        return os.waitstatus_to_exitcode(status)
    raise TimeoutError(f"process {pid} did not end in {seconds:g} s")


def visible(folder: Path) -> dict[str, bytes]:
    """The files a user sees: names without a leading dot."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.is_file() and not path.name.startswith(".")
    }


def read_whole(path: Path) -> Any:
    """Read a written file; raises where it is torn."""
    if path.suffix == ".parquet":
        return len(pd.read_parquet(path))
    if path.suffix == ".csv":
        frame = pd.read_csv(path)
        assert not frame.iloc[-1].isna().all()
        return len(frame)
    if path.suffix == ".json":
        return len(json.loads(path.read_text()))
    return len(path.read_bytes())


def killed_often(
    words: Callable[[Path], list[str]], name: str, kills: int, seed: int
) -> dict[str, int]:
    """Kill a command at random moments; after each, the file is the old or the new one, whole.

    Half of the moments lie near the end, where the file is written. A run that ends first says how long
    a run is by now, and another one is killed in its place.
    """
    generator = random.Random(f"{name}|{seed}")
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        place = folder / name
        started = time.monotonic()
        assert waited(child(words(place))) == 0
        length = time.monotonic() - started
        whole = read_whole(place)
        counts = {"killed": 0, "ended first": 0}
        while counts["killed"] < kills and counts["ended first"] <= 2 * kills:
            number = sum(counts.values())
            if number % 2:
                place.unlink(missing_ok=True)
            before = visible(folder)
            pid = child(words(place))
            share = generator.uniform(0.7, 1.05) if number % 4 < 2 else generator.uniform(0, 1)
            started = time.monotonic()
            ended = waited(pid, length * share, signal.SIGKILL)
            if ended != -signal.SIGKILL:
                length = time.monotonic() - started
            counts["killed" if ended == -signal.SIGKILL else "ended first"] += 1
            after = visible(folder)
            assert set(after) <= {*before, name}, (
                f"a file that nobody asked for: {set(after) - set(before)}"
            )
            if name in before:
                assert name in after, "the old file is lost"
            if name in after:
                assert read_whole(place) == whole, "a torn file"
        assert waited(child(words(place))) == 0
        assert read_whole(place) == whole
    return counts
