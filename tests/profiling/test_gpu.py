"""What only a CUDA device can show; skipped where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from costmodel.models import load_model
from profiling.counting.memory import allocator_peaks
from profiling.counting.one_run import count_run
from profiling.devices.cuda import CudaMemory
from profiling.measuring.profile import profile
from profiling.records.measurement import TOTAL, Configuration
from profiling.subject.execution import Execution
from profiling.subject.models import build_model
from profiling.subject.modes import applied_mode

if TYPE_CHECKING:
    from pathlib import Path

    from profiling.measuring.point import Options

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(scope="module")
def on_gpu(tiny_source: str) -> Any:
    return build_model(tiny_source, dtype="bf16", device="cuda")


def _execution(model: Any, source: str, **changes: Any) -> Execution:
    values: dict[str, Any] = {"visual_tokens": 16, "text_tokens": 7, **changes}
    return Execution(model, load_model(source), Configuration(source, "bf16", **values))


def test_a_run_has_every_quantity(tiny_source: str, tmp_path: Path, quick: Options) -> None:
    (record,) = profile(
        tiny_source, device="cuda", visual_tokens=16, text_tokens=7, output_tokens=2,
        options=quick, out=tmp_path,
    )  # fmt: skip
    assert record.status == "ok"
    assert record.sampling.timer == "cuda-event"
    total = record.stages[TOTAL]
    assert total.enqueue_s
    assert total.wall_s
    assert total.host_bound is not None
    assert total.peak_reserved_bytes is not None
    assert total.kernels is not None
    assert total.kernels > 100


def test_the_allocator_agrees_with_the_ledger(on_gpu: Any, tiny_source: str) -> None:
    execution = _execution(on_gpu, tiny_source, visual_tokens=256, batch_size=4)
    with execution.ready():
        execution.run()
        _, expected = count_run(execution)
        measured = allocator_peaks(execution, CudaMemory())
    for stage in ("vision", "prefill"):
        grown = measured[stage].peak_allocated_bytes - measured[stage].resident_bytes
        assert grown == pytest.approx(
            expected[stage].peak_allocated_bytes - expected[stage].resident_bytes, rel=0.05
        )


def test_the_counter_equals_the_cost_model_on_the_device(on_gpu: Any, tiny_source: str) -> None:
    from costmodel import estimate

    execution = _execution(on_gpu, tiny_source)
    with execution.ready():
        counts, _ = count_run(execution)
    expected = estimate(tiny_source, "nvidia-h200-sxm-141gb", visual_tokens=16, text_tokens=7)
    for stage in ("vision", "projector", "prefill"):
        assert counts[stage].flops == expected.stages[stage].flops


def test_graphs_give_the_eager_logits(on_gpu: Any, tiny_source: str) -> None:
    execution = _execution(on_gpu, tiny_source, output_tokens=2)

    def logits() -> list[torch.Tensor]:
        output = execution.first_logits()
        result = [output.logits.clone()]
        for _ in range(2):
            output = execution.decode(output)
            result.append(output.logits.clone())
        return result

    with execution.ready():
        eager = logits()
        with applied_mode("cuda-graph", execution.parts, "cuda"):
            logits()
            torch.testing.assert_close(logits(), eager)


def test_kernels_are_found_in_every_stage(on_gpu: Any, tiny_source: str) -> None:
    from profiling.tracing.kernels import trace_run

    execution = _execution(on_gpu, tiny_source, output_tokens=1)
    with execution.ready():
        records = trace_run(execution)
    assert {record.stage for record in records} >= {"vision", "projector", "prefill", "decode"}
    assert sum(record.op == "q_proj" for record in records if record.stage == "prefill") >= 2
