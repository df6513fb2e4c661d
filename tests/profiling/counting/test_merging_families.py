"""Counts of families that merge patches: the cost model and torch agree stage by stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from merging_families import CASES, INPUTS, write_config

from profiling.counting.three_counters import count_model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("kind", "given"), CASES)
def test_cost_model_and_torch_agree_to_the_unit(kind: str, given: str, tmp_path: Path) -> None:
    report = count_model(write_config(kind, tmp_path), text_tokens=7, fvcore=False, **INPUTS[given])
    assert report.agrees
    stages = {row.stage for row in report.rows}
    assert stages == {"vision", "projector", "prefill", "decode"}


def test_a_shipped_model_at_a_scale() -> None:
    assert count_model("qwen3-vl-2b@layers=2,width=1/8", image_size=(112, 140), fvcore=False).agrees
