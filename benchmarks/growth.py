"""Where the lines went: packages, rooms, files and tests, at a commit of the start and now.

    python benchmarks/growth.py [--since REV]

prints the section of docs/promises.md that `make promises` ends it with. Lines are counted by git, in
Python files, blank lines and docstrings included. A room is a folder of a package.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: Main on 2026-11-20: estimates, ten methods, the profiler and the reconciliation were there.
START = "34f4d32"
#: Collected there by pytest.
TESTS_THEN = 4_146
#: What the lines of each package are for; a sentence each.
WENT = {
    "hardware_specs": "46 devices became 53, nodes and links came with them, and every file is opened and "
    "written in one place.",
    "costmodel": "10 models became 35, and the methods' prices three times as many lines; quantised "
    "formats, several devices, audits of published tables and questions beyond one estimate are new.",
    "token_reduction": "13 methods became 33, while what puts them into a model lost a sixth.",
    "profiling": "Traces of others are explained and results of their tools imported; the command line left.",
    "vlm_roofline": "The command line, a room of profiling before, and the explorer.",
    "benchmarks": "Evidence, peers and these checks, and fits of calibrations on public measurements.",
    "notebooks": "Three notebooks became seven.",
    "tests": "Each method and family has its own, and so have spoilt input, kills, full disks and clusters.",
}


def counted(rev: str) -> tuple[Counter[str], Counter[str]]:
    """Return lines and files of a commit by package and by room; rooms are `package/folder`."""
    lines, files = Counter[str](), Counter[str]()
    for row in _git("grep", "-c", "", rev, "--", "*.py"):
        path, _, number = row.removeprefix(f"{rev}:").rpartition(":")
        package, *folders = path.split("/")[:-1] or [""]
        for place in (package, "/".join([package, *folders[:1]])) if folders else (package,):
            lines[place] += int(number)
            files[place] += 1
    return lines, files


def test_functions(rev: str) -> int:
    """Return how many functions are tests; most of them run for many cases."""
    return sum(
        int(row.rpartition(":")[2]) for row in _git("grep", "-c", "def test_", rev, "--", "tests")
    )


def growth(since: str = START) -> str:
    """Return the section as Markdown; a sentence instead where the history lacks the commit."""
    try:
        (then, files_then), (now, files) = counted(since), counted("HEAD")
        tests = test_functions(since), test_functions("HEAD")
    except subprocess.CalledProcessError:
        return f"The history here has no commit {since}.\n"
    head = f"| package | {since} | now | rooms of then | rooms since | files | where they went |\n"
    head += "|---|---:|---:|---:|---:|---:|---|\n"
    rows = []
    for package, words in WENT.items():
        rooms = [name for name in now if name.startswith(f"{package}/")]
        new = sum(now[name] for name in rooms if not then[name])
        rows.append(
            f"| {package} | {then[package]:,} | {now[package]:,} | {now[package] - new:,} | {new:,} | "
            f"{files_then[package]} to {files[package]} | {words} |"
        )
    total = [sum(count[name] for name in WENT) for count in (then, now, files_then, files)]
    rows.append(f"| all | {total[0]:,} | {total[1]:,} | | | {total[2]} to {total[3]} | |")
    rooms = sorted(
        (name for name in now if "/" in name and not then[name]), key=lambda name: -now[name]
    )
    since_then = ", ".join(
        f"{name} {now[name]:,}" for name in rooms if not name.startswith(("tests/", "docs/"))
    )
    return (
        f"{head}" + "\n".join(rows) + f"\n\nRooms since: {since_then}.\n\n"
        f"Test functions: {tests[0]:,} at {since}, {tests[1]:,} now. {suite()}\n"
    )


def suite() -> str:
    """Say how long the suite took on the newest releases, when that was last stored."""
    rows = csv.DictReader(
        (ROOT / "docs" / "compatibility.csv").read_text(encoding="utf-8").splitlines()
    )
    row = next(each for each in rows if each["set"] == "newest" and each["date"])
    return (
        f"The suite on the newest releases: {row['result']} in {row['minutes']} minutes ({row['date']}, "
        f"docs/compatibility.csv); at {START} it had {TESTS_THEN:,} tests."
    )


def _git(*words: str) -> list[str]:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


if __name__ == "__main__":
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--since", default=START, help="the commit to count from")
    print(growth(asked.parse_args().since))
