"""The plan `cuda-graph`: hf-eager's kernels without its host."""

from __future__ import annotations

from costmodel import estimate
from costmodel.plans import get_plan

A100 = "nvidia-a100-sxm4-80gb"


def test_the_same_kernels_and_memory_and_no_host() -> None:
    eager, graph = (
        estimate("llava-1.5-7b", A100, execution=plan, output_tokens=2, calibration=A100)
        for plan in ("hf-eager", "cuda-graph")
    )
    for stage in ("vision", "prefill", "decode"):
        assert graph.stages[stage].kernels == eager.stages[stage].kernels
        assert graph.stages[stage].hbm_bytes == eager.stages[stage].hbm_bytes
    assert graph.memory == eager.memory
    assert eager.stages["decode"].host_s > 0
    assert graph.stages["decode"].host_s == 0


def test_it_runs_pytorch() -> None:
    assert get_plan("cuda-graph").rules is get_plan("hf-eager").rules
    assert get_plan("cuda-graph").runs_pytorch
