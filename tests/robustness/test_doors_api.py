"""Fuzz of the Python interface: each case ends in a sane answer or in the project's own error."""

from __future__ import annotations

import pytest
from fuzzing.doors_api import DOORS
from fuzzing.running import fuzzed

CASES = 2000


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_every_case_is_answered_or_refused(door):
    *_, tally = fuzzed(door, CASES)
    assert not tally.causes, {cause: tally.example[cause] for cause in tally.causes}
    assert tally.kinds["ok"] > 0
    assert tally.kinds["refused"] > 0
