"""The carried public measurements, and the module that reads them, as fixtures."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "costmodel" / "calibration" / "data"


@pytest.fixture(scope="session")
def public_module():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import calibration_public
    finally:
        sys.path.pop(0)
    return calibration_public


@pytest.fixture(scope="session")
def public(public_module):
    return public_module.load(DATA)
