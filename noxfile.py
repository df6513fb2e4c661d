"""The test suite on the lowest and the newest releases that `pyproject.toml` allows, on every Python.

    nox                     # each set on each Python of 3.11 to 3.14 that the machine has
    nox -s suite-3.12 -- gpu-image      # one Python, one set
    nox -s outdated         # bound, newest release and newest tested release of every dependency

Every run adds a row to docs/compatibility.csv; a Python that the machine lacks is listed there as well.
"""

from __future__ import annotations

import csv
import datetime
import json
import re
import shutil
import tomllib
from pathlib import Path

import nox

ROOT = Path(__file__).parent
RECORD = ROOT / "docs" / "compatibility.csv"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
#: set -> the Pythons it makes sense on, None for all: old releases have no wheels for new Pythons.
SETS = {"lowest": ("3.11",), "newest": None, "gpu-image": ("3.12",)}

nox.options.sessions = ["absent", *(f"suite-{python}" for python in PYTHONS)]
nox.options.error_on_missing_interpreters = False


def requirements() -> dict[str, str]:
    """Return every dependency of a user, by name, as `pyproject.toml` bounds it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    groups = [
        project["dependencies"],
        *(extras[name] for name in extras if name not in ("dev", "docs")),
    ]
    found = (re.match(r"([A-Za-z0-9_.-]+)(.*)", line) for group in groups for line in group)
    return {m[1]: m[2] for m in found if m and not m[2].startswith("[")}


def pins(name: str) -> list[str]:
    """Return the exact releases of a set; nothing where the newest are wanted."""
    if name == "newest":
        return []
    if name == "gpu-image":  # Images with CUDA that people have today.
        return ["torch==2.11.*", "transformers==5.17.*"]
    lowest = (
        (package, re.search(r">=\s*([^,]+)", bound)) for package, bound in requirements().items()
    )
    return [f"{package}=={found[1]}" for package, found in lowest if found]


def record(row: dict[str, str]) -> None:
    """Put a row into the record, in the place of an older one of the same set and Python."""
    columns = ("set", "python", *sorted(requirements()), "result", "minutes", "date")
    rows = list(csv.DictReader(RECORD.open(encoding="utf-8"))) if RECORD.exists() else []
    rows = [old for old in rows if (old["set"], minor(old)) != (row["set"], minor(row))]
    rows = sorted([*rows, row], key=lambda item: (minor(item), item["set"]))
    with RECORD.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, "", "ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def minor(row: dict[str, str]) -> tuple[int, ...]:
    """Return the Python of a row, such as (3, 12)."""
    return tuple(int(part) for part in row["python"].split(".")[:2])


@nox.session(python=PYTHONS, venv_backend="venv")
def suite(session: nox.Session) -> None:
    """Run the suite on the sets that were asked for, by default on all that fit this Python."""
    version = str(session.python)
    for name in session.posargs or SETS:
        allowed = SETS[name]
        if allowed and version not in allowed:
            continue
        constraints = Path(session.create_tmp()) / f"{name}.txt"
        constraints.write_text("\n".join(pins(name)), encoding="utf-8")
        started = datetime.datetime.now(tz=datetime.UTC)
        session.install("--upgrade", "pip")
        session.install(
            "--upgrade", "--upgrade-strategy", "eager", "--editable", ".[dev]",
            "--constraint", str(constraints),
        )  # fmt: skip
        versions = json.loads(
            session.run("python", "-c", _VERSIONS, *requirements(), silent=True, log=False) or "{}"
        )
        said = session.run(
            "python", "-m", "pytest", "-n", "2", "--dist", "loadfile", "-q", silent=True,
            success_codes=[0, 1], env={"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        )  # fmt: skip
        last = str(said).strip().splitlines()[-1].strip("= ")
        minutes = (datetime.datetime.now(tz=datetime.UTC) - started).total_seconds() / 60
        row = {"set": name, "result": last.partition(" in ")[0], "minutes": f"{minutes:.1f}"}
        record(row | versions | {"date": started.date().isoformat()})
        if "failed" in last or "error" in last:
            session.error(f"{name} on Python {version}: {last}\n{str(said)[-20_000:]}")


@nox.session(python=False)
def absent(session: nox.Session) -> None:
    """Record the Pythons that this machine lacks, so that the table says what was not run."""
    for python in PYTHONS:
        if shutil.which(f"python{python}") is None:
            session.log(f"no Python {python} on this machine")
            record({"set": "newest", "python": python, "result": "not run: no such Python there"})


#: Run inside the session's environment: the releases that it holds, as JSON. The suite does without
#: some extras (`ray`), so their columns stay empty.
_VERSIONS = """
import json, platform, sys
from importlib.metadata import distributions
held = {found.name.lower(): found.version for found in distributions()}
asked = {name: held.get(name.lower(), "") for name in sys.argv[1:]}
print(json.dumps({"python": platform.python_version()} | asked))
"""


@nox.session(python=False)
def outdated(session: nox.Session) -> None:
    """Print bound, newest release and newest tested release of every dependency; asks the registry."""
    tested = list(csv.DictReader(RECORD.open(encoding="utf-8"))) if RECORD.exists() else []
    session.log(f"{'package':22} {'bound':28} {'newest':14} newest tested")
    for package, bound in sorted(requirements().items()):
        said = session.run(
            "python", "-m", "pip", "index", "versions", package, silent=True, log=False,
            external=True, success_codes=[0, 1],
        )  # fmt: skip
        found = re.search(r"\(([^)]+)\)", str(said))
        newest = found[1] if found else "not found"
        seen = [row[package] for row in tested if row.get(package) and "passed" in row["result"]]
        best = max(seen, key=lambda text: [int(n) for n in re.findall(r"\d+", text)], default="-")
        session.log(f"{package:22} {bound or 'any':28} {newest:14} {best}")
