"""Commands and imports answer at once because they never load what they do not need."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = "torch transformers pandas matplotlib scipy pyarrow fvcore"
PACKAGES = ("hardware_specs", "costmodel", "token_reduction", "profiling")
CONVENTIONS = (
    "import costmodel.conventions as c, costmodel.reproduce as r\n"
    "[c.get_convention(n) for n in c.list_conventions()]; r.list_tables()"
)
ESTIMATE = (
    "from vlm_roofline.cli import main\n"
    "main(['estimate', 'llava-1.5-7b', '-d', 'nvidia-a100-sxm4-80gb', '--json'])"
)
METHODS = (
    "import vlm_roofline.cli.methods as m, vlm_roofline.cli.frontier\n"
    "from costmodel.methods import method_info; m.document(method_info('fastv'))\n"
    "from costmodel.questions.frontiers import frontier\n"
    "frontier('llava-1.5-7b', 'nvidia-a100-sxm4-80gb', benchmark='pope').to_dict()"
)


@pytest.mark.parametrize(
    ("statement", "more"),
    [
        *((f"import {package}", "pydantic") for package in PACKAGES),
        (CONVENTIONS, "pydantic"),
        ("import costmodel.plots, profiling.report", ""),
        (ESTIMATE, ""),
        (METHODS, ""),
    ],
)
def test_nothing_heavy_is_loaded(statement: str, more: str) -> None:
    check = f"import sys; sys.exit(' '.join({{*'{HEAVY} {more}'.split()}} & set(sys.modules)) or 0)"
    done = subprocess.run(
        [sys.executable, "-c", f"{statement}\n{check}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
