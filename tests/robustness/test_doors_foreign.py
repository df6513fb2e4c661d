"""Fuzz of what other programs wrote: a trace explained or results imported, or the project's own error."""

from __future__ import annotations

import pytest
from fuzzing.doors_foreign import DOORS
from fuzzing.running import fuzzed

CASES = 2000


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_every_case_is_answered_or_refused(door):
    *_, tally = fuzzed(door, CASES)
    assert not tally.causes, {cause: tally.example[cause] for cause in tally.causes}
    assert tally.kinds["ok"] > 0
    assert tally.kinds["refused"] > 0
