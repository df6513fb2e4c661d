"""Each finding that is not mended yet, reproduced; `conftest` expects these to fail, strictly."""

from __future__ import annotations

import contextlib

import pytest
from fuzzing.known import KNOWN

from hardware_specs.errors import VlmRooflineError


@pytest.mark.parametrize("finding", KNOWN, ids=lambda finding: finding.name)
def test_is_mended(finding, tmp_path):
    with contextlib.suppress(VlmRooflineError):
        finding.reproduce(tmp_path)
