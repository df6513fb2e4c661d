"""Counts of families that merge patches: the cost model and torch agree stage by stage."""

from __future__ import annotations

import pytest

from profiling.counting.three_counters import count_model


@pytest.mark.parametrize(
    "model", ["qwen2.5-vl-7b@layers=2,width=1/4", "qwen3-vl-2b@layers=2,width=1/8",
              "internvl3-8b@layers=1,width=1/4"],
)  # fmt: skip
def test_cost_model_and_torch_agree_to_the_unit(model: str) -> None:
    report = count_model(model, image_size=(112, 140), fvcore=False)
    assert report.agrees
    stages = {row.stage for row in report.rows}
    assert stages == {"vision", "projector", "prefill", "decode"}
