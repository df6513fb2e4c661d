"""Nothing but `hardware_specs.files` opens users' files: a reader or writer of its own is found here."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import hardware_specs

ROOT = Path(hardware_specs.__file__).parents[1]
PACKAGES = ("hardware_specs", "costmodel", "token_reduction", "profiling", "vlm_roofline")

#: Calls by the last word of their name that open a file.
OPENS = frozenset(
    {"open", "fdopen", "read_text", "read_bytes", "write_text", "write_bytes", "safe_open",
     "read_csv", "read_parquet", "savefig", "to_parquet", "NamedTemporaryFile", "mkstemp", "touch",
     "ParquetFile", "ParquetWriter"}
)  # fmt: skip

#: Module -> the calls in it that are no file of a user's, or that go through the one reader.
ALLOWED = {
    "hardware_specs/cpu.py": {"read_text"},  # the kernel's files
    "hardware_specs/detect.py": {"read_bytes"},  # the kernel's name of the board
    "costmodel/accuracy/collected.py": {"read_text"},  # shipped
    "costmodel/accuracy/published.py": {"read_text"},  # shipped
    "costmodel/models/pictures.py": {"open"},  # Pillow, on the one reader's file
    "costmodel/audits/audit.py": {"read_text"},  # the one reader's
    "costmodel/methods/fitprune.py": {"read_text"},  # shipped
    "costmodel/reproduce/published.py": {"read_text"},  # shipped
    "costmodel/calibration/tables.py": {"read_bytes", "read_csv", "ParquetFile"},  # of bytes read
    "profiling/explaining/optable.py": {"to_parquet"},  # into memory
    "profiling/importing/content.py": {"read_text"},  # the one reader's
    "profiling/instruments/environment.py": {"read_text"},  # the kernel's files
    "profiling/instruments/watch.py": {"read_text"},  # the kernel's files
    "profiling/measuring/plan_file.py": {"read_text"},  # the one reader's
    "profiling/records/storage.py": {"read_text"},  # the one reader's
    "profiling/report/html.py": {"read_text"},  # shipped
    "profiling/tracing/kernels.py": {"read_bytes"},  # the one reader's, and the profiler's own file
    "profiling/whole_loop.py": {"read_bytes"},  # what the loop has just written
    "token_reduction/tokens/weights.py": {"safe_open"},  # after `regular_file`
    "costmodel/plots/style.py": {"savefig"},  # into memory
    "costmodel/questions/parts.py": {"ParquetWriter", "ParquetFile"},  # the one writer's file
    "costmodel/questions/sweep_plan.py": {"read_bytes"},  # the one reader's
    "hardware_specs/cluster.py": {"open"},  # the null device, for Ray's reports
    "vlm_roofline/cli/__init__.py": {"open"},  # the null device, for closed streams
    "vlm_roofline/explorer/page.py": {"read_text"},  # shipped
}


def openers(text: str) -> set[str]:
    """Return the calls of a module that open a file."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            name = node.func
            word = name.attr if isinstance(name, ast.Attribute) else getattr(name, "id", "")
            if word in OPENS:
                found.add(word)
    return found


def test_only_the_reader_and_the_writer_open_files() -> None:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith("hardware_specs/files/"):
                rest = openers(path.read_text(encoding="utf-8")) - ALLOWED.get(name, set())
                if rest:
                    found[name] = rest
    assert found == {}


@pytest.mark.parametrize(
    "offence",
    ["open('x')", "path.open('w')", "Path('x').read_text()",
     "pd.read_csv(path)", "figure.savefig(path)", "os.fdopen(3)"],
)  # fmt: skip
def test_planted_offences_are_found(offence: str) -> None:
    assert openers(f"def f(path):\n    return {offence}")
