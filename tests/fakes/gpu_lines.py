"""How many lines of what runs on a device the tests on a fake GPU run.

    python -m pytest -n 0 -p tests.fakes.gpu_lines tests/profiling

Only tests that use the fake GPU or the fake NVML count: `gpu` and what rests on it, and files with a
`FakeNvml`. Counted are the lines inside functions of `MODULES`, those that only a CPU reaches and those
that only refuse (`raise`, with what it says) left out. At the end it prints each line that no test ran.
"""

from __future__ import annotations

import ast
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

ROOT = Path(__file__).parents[2] / "profiling"
#: What runs while a device is measured; the CPU's own implementation is not among it.
MODULES = (
    *("devices/cuda.py", "devices/device.py", "device_campaign.py", "tracing/kernels.py"),
    *("counting/ledger.py", "counting/memory.py", "counting/one_run.py"),
    *("instruments/*.py", "measuring/*.py", "microbench/*.py", "subject/*.py"),
)
#: Several processes, plans in files and other people's checkpoints have tests of their own.
OTHERWISE = {
    f"{name}.py"
    for name in ("ray_engine", "launching", "together", "division", "plan_file", "checkpoint")
}
FAKES = {"gpu", "gpu_of_shapes", "sensors"}
_ran: dict[str, set[int]] = {}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Watch a test on a fake GPU, and no other."""
    fakes = FAKES & set(getattr(item, "fixturenames", ()))
    watched = fakes or hasattr(getattr(item, "module", None), "FakeNvml")
    sys.settrace(_entered if watched else None)
    threading.settrace(_entered if watched else None)  # type: ignore[arg-type]


def pytest_runtest_teardown() -> None:
    """Stop watching."""
    sys.settrace(None)
    threading.settrace(None)  # type: ignore[arg-type]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the lines that were not reached, and the share of those that were."""
    counted = reached = 0
    paths = {path for pattern in MODULES for path in ROOT.glob(pattern)}
    for path in sorted(path for path in paths if path.name not in OTHERWISE):
        text = path.read_text(encoding="utf-8")
        lines = set(_lines(text, str(path)))
        missed = lines - _ran.get(str(path), set())
        counted, reached = counted + len(lines), reached + len(lines) - len(missed)
        for number in sorted(missed):
            line = text.splitlines()[number - 1].strip()
            terminalreporter.write_line(f"{path.relative_to(ROOT)}:{number}: {line}")
    share = 100 * reached / counted
    terminalreporter.write_line(f"{reached} of {counted} lines run on a fake GPU, {share:.1f} %")


def _entered(frame: Any, _event: str, _what: Any) -> Any:
    name = frame.f_code.co_filename
    if not name.startswith(str(ROOT)):
        return None
    lines = _ran.setdefault(name, set())
    lines.add(frame.f_lineno)

    def line(frame: Any, event: str, _what: Any) -> Any:
        if event == "line":
            lines.add(frame.f_lineno)
        return line

    return line


def _lines(text: str, name: str) -> Iterator[int]:
    """Yield the lines at which a statement inside a function begins, refusals left out."""
    for function in ast.walk(ast.parse(text, name)):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.stmt) and node is not function and not _refuses(node):
                yield node.lineno


def _refuses(node: ast.stmt) -> bool:
    """Return whether a statement only raises, or does nothing that could run."""
    documents = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return documents or isinstance(
        node, (ast.Raise, ast.FunctionDef, ast.ClassDef, ast.Global, ast.Nonlocal)
    )
