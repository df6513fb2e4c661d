"""Fuzz of the command line in one process: exit 0 with sane numbers, or exit 2 with one line."""

from __future__ import annotations

import pytest
from fuzzing.doors_command_line import DOORS
from fuzzing.running import fuzzed

CASES = 2000


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_every_case_is_answered_or_refused(door):
    *_, tally = fuzzed(door, CASES)
    assert not tally.causes, {cause: tally.example[cause] for cause in tally.causes}
    assert tally.kinds["ok"] > 0
    assert tally.kinds["refused"] > 0
