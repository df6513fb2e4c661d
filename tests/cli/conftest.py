from __future__ import annotations

import pytest
from known_laws import *  # noqa: F403  (its fixtures)
from public_tables import *  # noqa: F403  (its fixtures)
from tiny_models import *  # noqa: F403  (its fixtures)

from profiling.records.storage import write_measurement
from vlm_roofline.cli import main


@pytest.fixture
def refused(capsys):
    """Run a command that must end with exit code 2 and one line beside its warnings; return the line."""

    def run(*words) -> str:
        capsys.readouterr()
        assert main([str(word) for word in words]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        told = [line for line in printed.err.splitlines() if line.strip()]
        (error,) = (line for line in told if not line.startswith("warning:"))
        assert error.startswith("error: ")
        assert len(error) < 2000
        return error

    return run


@pytest.fixture
def folder(lab, tmp_path):
    """Three runs of a known law, and the law."""
    law = lab.law_of()
    runs = tmp_path / "runs"
    runs.mkdir()
    for tokens in (1, 64, 576):
        record = lab.measured(lab.configuration(visual_tokens=tokens), calibration=law, factor=1.1)
        write_measurement(record, runs)
    law.save(tmp_path / "law.json")
    return tmp_path
