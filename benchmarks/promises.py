"""What the project promises, each promise checked: `make promises` writes docs/promises.md.

    python benchmarks/promises.py [--only TEXT] [--out docs/promises.md]

Short checks run now. What takes longer (the suite on every set of releases, a long fuzz) shows the last
figure that its own command stored, with its date. Exit code 1 where a promise does not hold.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from growth import growth

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PACKAGES = ("hardware_specs", "costmodel", "token_reduction", "profiling", "vlm_roofline")
A100 = "nvidia-a100-sxm4-80gb"
#: A file is one idea.
MOST_LINES = 500
TODAY = datetime.datetime.now(tz=datetime.UTC).date().isoformat()


class Found(NamedTuple):
    """What a check found: the figure, whether the promise holds, and when that was seen."""

    figure: str
    holds: bool
    seen: str = TODAY


@dataclass(frozen=True)
class Promise:
    """A promise.

    Attributes:
        to: a user or a contributor.
        what: is promised.
        limit: in words.
        command: checks it.
        check: does so.
    """

    to: str
    what: str
    limit: str
    command: str
    check: Callable[[], Found] = field(repr=False)


def tests(*targets: str) -> tuple[str, Callable[[], Found]]:
    """Return the command of some tests, and the check that runs them."""
    command = "pytest " + " ".join(targets)

    def check() -> Found:
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", *targets],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        last = next((line for line in reversed(ran.stdout.splitlines()) if " in " in line), "")
        return Found(last.partition(" in ")[0].strip("= ") or "no test ran", ran.returncode == 0)

    return command, check


def stored(name: str) -> list[dict[str, str]]:
    """Return the rows of a table that a longer command wrote."""
    return list(csv.DictReader((DOCS / f"{name}.csv").read_text(encoding="utf-8").splitlines()))


def releases(which: str) -> Found:
    """Read what the suite said on a set of releases."""
    rows = [row for row in stored("compatibility") if row["set"] == which and row["date"]]
    if not rows:
        return Found("not run", False, "")
    said = "; ".join(
        f"Python {row['python']}, torch {row['torch']}, transformers {row['transformers']}: "
        f"{row['result']}"
        for row in rows
    )
    holds = all(re.match(r"\d+ passed", row["result"]) for row in rows)
    return Found(said, holds, min(row["date"] for row in rows))


def fuzzed(kills: bool, least: int) -> Found:
    """Read the last long run of the fuzz: spoilt inputs, or kills."""
    rows = [row for row in stored("reliability") if row["what"].startswith("kill") == kills]
    # A run that ended before its kill is none.
    counted = "ok" if kills else "cases"
    cases, faults = (sum(int(row[name]) for row in rows) for name in (counted, "faults"))
    what = "kills" if kills else f"spoilt inputs at {len(rows)} doors"
    seen = min((row["date"] for row in rows), default="")
    return Found(f"{cases:,} {what}, {faults} faults", cases >= least and faults == 0, seen)


def evidence() -> Found:
    """Hold the shipped law against other people's measurements, device by device."""
    page = (DOCS / "evidence.md").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "evidence.md"
        made = subprocess.run(
            [sys.executable, "benchmarks/evidence.py", "--out", str(place)],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        fresh = place.read_text(encoding="utf-8") if made.returncode == 0 else ""
    ratios = [float(found) for found in re.findall(r"\| (\d\.\d\d) \(\d", fresh)]
    if not ratios:
        return Found("benchmarks/evidence.py failed", False)
    inside = [int(found) for found in re.findall(r"\| (\d+)% \|", fresh)]
    figure = (
        f"medians {min(ratios):.2f} to {max(ratios):.2f} over {len(ratios)} tables; 90 % intervals "
        f"hold {min(inside)} to {max(inside)} % of the points"
    )
    stale = "" if fresh == page else "; docs/evidence.md is not what the command makes"
    holds = min(ratios) >= 0.9 and max(ratios) <= 1.1 and min(inside) >= 80 and not stale
    return Found(figure + stale, holds)


def least(run: Callable[[], object], times: int, rounds: int = 7) -> float:
    """Return the processor's seconds of one run, the least of several rounds."""
    run()
    best = float("inf")
    for _ in range(rounds):
        started = time.process_time()
        for _ in range(times):
            run()
        best = min(best, (time.process_time() - started) / times)
    return best


def estimates() -> Found:
    """Time calibrated and ideal estimates, each at a token count of its own."""
    from costmodel import estimate

    lengths = iter(range(1, 1_000_000))
    ideal, law = (
        least(lambda how=how: estimate("llava-1.5-7b", A100, text_tokens=next(lengths), calibration=how), 100)
        for how in ("none", "auto")
    )  # fmt: skip
    return Found(
        f"{law / ideal:.2f} ({law * 1e6:.0f} and {ideal * 1e6:.0f} us)", law / ideal <= 2.2
    )


def sweeps() -> Found:
    """Time calibrated and ideal sweeps."""
    from costmodel.questions.sweeps import sweep_chunks

    rows = 576 * 32

    def run(how: str) -> None:
        for _ in sweep_chunks(
            "llava-1.5-7b", A100, visual_tokens=np.arange(1, 577), batch_size=np.arange(1, 33),
            calibration=how,
        ):  # fmt: skip
            pass

    ideal, law = (least(lambda how=how: run(how), 1, 5) for how in ("none", "auto"))
    return Found(
        f"{ideal / law:.2f} ({rows / law / 1e6:.1f} and {rows / ideal / 1e6:.1f} million rows a second)",
        ideal / law >= 0.5,
    )


def cold_start() -> Found:
    """Time `estimate --json` in a fresh process beside the import of the libraries it needs.

    All have their bytecode, as installed packages do, whatever the shell says of writing it.
    """
    runs = {
        "ours": ["-m", "vlm_roofline", "estimate", "llava-1.5-7b", "-d", A100, "--json"],
        "libraries": ["-c", "import numpy, typer, pydantic, yaml; pydantic.BaseModel"],
        "numpy": ["-c", "import numpy"],
    }
    spent = dict.fromkeys(runs, float("inf"))
    with tempfile.TemporaryDirectory() as folder:
        given = os.environ | {"PYTHONPYCACHEPREFIX": folder}
        given.pop("PYTHONDONTWRITEBYTECODE", None)
        # The first round writes the bytecode.
        for _ in range(8):
            for name, words in runs.items():
                before = _childrens_seconds()
                subprocess.run(
                    [sys.executable, *words], cwd=ROOT, env=given, capture_output=True, check=True
                )
                spent[name] = min(spent[name], _childrens_seconds() - before)
    ratio = spent["ours"] / spent["libraries"]
    return Found(
        f"{ratio:.2f} ({spent['ours']:.2f} s of the processor, bytecode at hand; "
        f"{spent['ours'] / spent['numpy']:.1f} times numpy alone, since typer 0.29 brings pydantic)",
        ratio <= 2.3,
    )


def _childrens_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def lines() -> Found:
    """Count the lines of the longest file; those by package stand in `growth`."""
    number, path = max(
        (path.read_text(encoding="utf-8").count("\n"), str(path.relative_to(ROOT)))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    )
    return Found(f"longest {path} with {number}", number <= MOST_LINES)


def table_2() -> Found:
    """Count the cells of PruMerge's Table 2 that come out to the printed digit."""
    said = subprocess.run(
        [sys.executable, "-m", "vlm_roofline", "reproduce", "prumerge-table2", "--json"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(said.stdout)["summary"]
    matched = found["printed_digits_reproduced"]
    return Found(f"{matched} of {found['cells']}", matched >= 31)


PROMISES = (
    Promise("user", "`make test` passes on the newest releases", "all pass", "nox",
        lambda: releases("newest")),
    Promise("user", "and on the lowest that are allowed", "all pass", "nox", lambda: releases("lowest")),
    Promise("user", "and on those of GPU images", "all pass", "nox", lambda: releases("gpu-image")),
    Promise("user", "FLOPs equal `torch.utils.flop_counter` for every family, at every image size "
        "tried, with a cached prefix, and with every method at work", "no difference",
        *tests("tests/costmodel/test_flop_counter.py", "tests/costmodel/test_native_flops.py",
        "tests/costmodel/test_windows_counted.py", "tests/costmodel/test_cached_prefix.py",
        "tests/token_reduction/test_flops_counted_while_reducing.py",
        "tests/token_reduction/test_flops_counted_in_other_families.py")),
    Promise("user", "Parameters equal what transformers builds, part by part", "no difference",
        *tests("tests/costmodel/models/test_parameters.py")),
    Promise("user", "A sweep's row is what `estimate` says of it alone; break-even, frontier and "
        "the largest batch are what asking one by one gives", "no difference",
        *tests("tests/robustness/test_sweep_equals_estimate.py", "tests/robustness/test_brute_force.py")),
    Promise("user", "Ops add up to stages, stages to totals; nothing is below nothing, and nothing "
        "calibrated below its roofline", "no exception", *tests("tests/robustness/test_ops_add_up.py",
        "tests/robustness/test_signs_and_bounds.py")),
    Promise("user", "PruMerge's Table 2 comes out to the printed digit", "31 of 32 cells",
        "vlm-roofline reproduce prumerge-table2", table_2),
    Promise("user", "Predictions agree with other people's measurements",
        "medians 0.9 to 1.1; 80 % of the points inside 90 % intervals", "python benchmarks/evidence.py",
        evidence),
    Promise("user", "Spoilt input ends in an answer or in one clear error", "100,000 cases, no fault",
        "make fuzz", lambda: fuzzed(False, 100_000)),
    Promise("user", "kill -9 loses nothing", "200 kills, no fault", "make fuzz", lambda: fuzzed(True, 200)),
    Promise("user", "A full or read-only disk costs one line, and the old file stays; shared "
        "records tell nothing private", "no exception", *tests("tests/robustness/test_outputs.py",
        "tests/robustness/test_privacy.py", "tests/robustness/test_last_net.py")),
    Promise("user", "A calibrated estimate costs little more than an ideal one", "2.2 times",
        "make promises", estimates),
    Promise("user", "A calibrated sweep keeps the rate of an ideal one", "half of it", "make promises",
        sweeps),
    Promise("user", "`estimate --json` from a cold start", "2.3 times the import of its libraries",
        "make promises", cold_start),
    Promise("user", "Every number of README comes from a run or a page", "no exception",
        *tests("tests/packaging/test_readme.py", "tests/packaging/test_commands.py")),
    Promise("contributor", "Imports run one way, between packages and inside them, without a circle; "
        "nothing outside its own file knows a family's, method's or plan's name", "no exception",
        *tests("tests/packaging/test_imports.py", "tests/costmodel/test_names_stay_home.py")),
    Promise("contributor", "A method is two files and a line, a family one and a line, a plan one; from "
        "outside they need no change here", "as said", *tests("tests/costmodel/methods/test_files.py",
        "tests/costmodel/methods/test_door.py", "tests/costmodel/test_extending.py")),
    Promise("contributor",
        "A number that is stored changes only with its reason in docs/changed-numbers.md", "no difference",
        *tests("tests/costmodel/test_stored_numbers.py")),
    Promise("contributor", "A file is one idea", f"{MOST_LINES} lines", "make promises", lines),
)  # fmt: skip


def page(found: list[tuple[Promise, Found]]) -> str:
    """Return docs/promises.md."""
    rows = [
        f"| {each.what} | {each.limit} | {said.figure} | {'yes' if said.holds else '**no**'} | "
        f"{said.seen} | `{each.command}` |"
        for each, said in found
    ]
    users = [row for (each, _), row in zip(found, rows, strict=True) if each.to == "user"]
    others = [row for (each, _), row in zip(found, rows, strict=True) if each.to != "user"]
    head = "| promise | limit | figure | holds | seen | checked by |\n|---|---|---|---|---|---|\n"
    return (
        "# What is promised, and whether it holds\n\n"
        "Made by `make promises`, in a few minutes. A date before the others' is the one on which a longer\n"
        "command stored its figure.\n\n"
        "## To a user\n\n" + head + "\n".join(users) + "\n\n"
        "## To a contributor\n\n" + head + "\n".join(others) + "\n\n"
        "## What it grew to\n\n"
        "Made by `python benchmarks/growth.py`: lines of Python, blank ones and docstrings included, as git\n"
        "counts them.\n\n" + growth()
    )


def main() -> int:
    """Check the promises, print each as it is known, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="promises that hold this text")
    parser.add_argument("--out", type=Path, help="write the page here")
    given = parser.parse_args()
    asked = [each for each in PROMISES if given.only.lower() in each.what.lower()]
    found = []
    for number, each in enumerate(asked, start=1):
        started = time.monotonic()
        said = each.check()
        found.append((each, said))
        mark = "holds " if said.holds else "BROKEN"
        print(
            f"[{number}/{len(asked)}] {mark} {each.what}: {said.figure} (limit {each.limit}; "
            f"{time.monotonic() - started:.0f} s)",
            flush=True,
        )
    if given.out and len(asked) == len(PROMISES):
        given.out.write_text(page(found), encoding="utf-8")
    return int(not all(said.holds for _, said in found))


if __name__ == "__main__":
    sys.exit(main())
