"""Kernels of one more layer, as eager PyTorch runs it and as the cost model has it.

What comes before the first layer is not modelled in full: positions, window index, masks.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest
from merging_families import CONFIGS, write_config
from packaging.version import Version

from costmodel import estimate
from costmodel.models import load_model
from profiling.counting.one_run import count_run
from profiling.records.measurement import Configuration
from profiling.subject.execution import Execution
from profiling.subject.models import build_model

if TYPE_CHECKING:
    from pathlib import Path

#: 8 x 6 tokens, whose windows are whole and cut; or the tiles of it.
SIZE = (64, 48)
#: Ops of the tower that come before its first layer and are not modelled.
FIRST = {
    "qwen2_vl": 12, "qwen2_5_vl": 27, "qwen3_vl": 71, "qwen3_vl_moe": 71, "smolvlm": 20, "idefics3": 20,
}  # fmt: skip


def _kernels(source: str) -> dict[str, tuple[int, int]]:
    """Kernels by stage: computed, counted."""
    given: dict[str, Any] = {"text_tokens": 9, "output_tokens": 1}
    configuration = Configuration(source, "fp32", device="cpu", image_sizes=(SIZE,), **given)
    execution = Execution(
        build_model(source, dtype="fp32", device="cpu"), load_model(source), configuration
    )
    with execution.ready():
        counted, _ = count_run(execution)
    cost = estimate(
        source, "a100", precision="fp32", execution="hf-eager", image_size=SIZE, **given
    )
    stages = ("vision", "projector", "prefill", "decode")
    return {each: (int(cost.stages[each].kernels), counted[each].ops) for each in stages}


@pytest.mark.skipif(
    Version(version("transformers")) < Version("5.23"),
    reason="older code of experts, Gemma 3 and Idefics3 launches other kernels than the plan describes",
)
@pytest.mark.parametrize("kind", CONFIGS)
def test_a_layer_launches_what_is_computed(kind: str, tmp_path: Path) -> None:
    less = _kernels(write_config(kind, tmp_path, layers=8, depth=3))
    more = _kernels(write_config(kind, tmp_path, layers=14, depth=9))
    added = {
        stage: [after - before for after, before in zip(more[stage], less[stage], strict=True)]
        for stage in less
    }
    assert added["vision"][0] == added["vision"][1] > 0
    assert added["projector"] == [0, 0]
    assert less["vision"][1] - less["vision"][0] == FIRST.get(kind, 0)
    for stage in ("prefill", "decode"):
        computed, counted = added[stage]
        # A CPU makes two scalars of a mask where a sliding layer of Gemma 3 has one.
        assert counted - computed <= (2 * 6 if kind == "gemma3" else 0)
        assert counted >= computed > 0
        assert abs(less[stage][1] - less[stage][0]) <= 0.04 * less[stage][1]
