"""`profile` from end to end on a fake GPU whose times, peaks and kernels are known."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from costmodel.quantities import STAGES
from hardware_specs.errors import DeviceUnavailableError
from profiling.measuring.profile import profile
from profiling.measuring.stopping import StopRule, WarmUpRule
from profiling.records.frame import measurements_frame
from profiling.records.measurement import TOTAL
from profiling.records.samples import summarise
from profiling.records.storage import read_measurements
from vlm_roofline.cli.console import console
from vlm_roofline.cli.measurement_table import measurement_table
from vlm_roofline.cli.units import show_share

if TYPE_CHECKING:
    from pathlib import Path

    from fake_cuda import FakeCuda

    from profiling.measuring.point import Options


@pytest.fixture
def brief(quick: Options) -> Options:
    """Three samples of everything but energy, whose windows need a slower device."""
    return replace(
        quick,
        energy=False,
        rule=StopRule(min_samples=3, min_time_s=0.0, max_time_s=0.01, max_samples=3),
        warm_up=WarmUpRule(min_time_s=0.0, max_time_s=0.0),
    )


def _profile(source: str, folder: Path, options: Options, **changes: Any) -> list[Any]:
    return profile(
        source, **{"device": "cuda", "dtype": "fp32", "text_tokens": 7, "visual_tokens": 16,
                   "out": folder, "options": options, **changes},
    )  # fmt: skip


def test_a_point_has_every_quantity(
    gpu: FakeCuda, tiny_source: str, tmp_path: Path, brief: Options
) -> None:
    (record,) = _profile(tiny_source, tmp_path, brief, output_tokens=1)
    assert (record.status, record.error) == ("ok", None)
    assert record.sampling.timer == "cuda-event"
    assert set(record.stages) == {"vision", "projector", "prefill", "decode", TOTAL}
    for name, data in record.stages.items():
        assert data.kernels, name
        assert data.enqueue_s, name
        assert data.idle_event_s, name
        assert data.flops, name
        assert data.peak_reserved_bytes >= data.peak_allocated_bytes >= data.resident_bytes > 0
    assert record.stages[TOTAL].wall_s
    parts = sum(record.stages[name].kernels for name in STAGES if name in record.stages)
    assert record.stages[TOTAL].kernels >= parts - record.stages["decode"].kernels
    # Events and waits name no device: they go to the one that is current.
    assert gpu.made_current == [torch.device("cpu")]
    assert record.environment["device_name"] == "NVIDIA H200"
    assert record.environment["cache_bytes"] == 50_000_000
    assert record.capabilities["peak_memory"] == "cuda-allocator"
    assert sum(record.attention_kernels.values()) == 2  # two layers
    assert record.why_missing["energy"] == "energy windows were switched off"


def test_a_host_bound_point_says_how_much_is_host_and_how_much_device(
    gpu: FakeCuda, tiny_source: str, tmp_path: Path, brief: Options, capsys: Any
) -> None:
    """Kernels of 4 us launched every 10 us: the device is idle for six of ten."""
    (record,) = _profile(tiny_source, tmp_path, brief)
    prefill = record.stages["prefill"]
    assert prefill.host_bound is True
    # 10 us a launch; marks at the stage's borders cost a little of the host's time too.
    assert prefill.host_s_per_kernel == pytest.approx(10e-6, rel=0.03)
    assert prefill.busy_s == pytest.approx(4e-6 * prefill.kernels, rel=0.01)
    event = prefill.median_s
    assert prefill.idle_s == pytest.approx(event - prefill.busy_s)
    assert prefill.idle_s == pytest.approx(0.6 * event, rel=0.05)
    console().print(measurement_table([record]))
    shown = capsys.readouterr().out
    total = record.stages[TOTAL]
    assert f"{total.kernels} " in shown
    assert show_share(total.idle_s / total.median_s) in shown
    assert f"{total.host_s_per_kernel * 1e6:.3g} us" in shown
    (row,) = measurements_frame([("a", record)]).query("stage == 'prefill'").to_dict("records")
    assert (row["idle_s"], row["kernels"]) == (prefill.idle_s, prefill.kernels)
    assert (row["busy_s"], row["host_s_per_kernel"]) == (prefill.busy_s, prefill.host_s_per_kernel)


def test_a_device_bound_point_does_not_blame_the_host(
    gpu: FakeCuda, tiny_source: str, tmp_path: Path, brief: Options
) -> None:
    """Once the queue is full the host's time is the device's, and no number of the host's."""
    gpu.law.overhead_s, gpu.queue = 100e-6, 20
    (record,) = _profile(tiny_source, tmp_path, brief)
    prefill = record.stages["prefill"]
    assert prefill.kernels > 3 * gpu.queue
    assert summarise(prefill.enqueue_s).median_s > 0.5 * prefill.median_s
    assert prefill.busy_s == pytest.approx(prefill.median_s, rel=0.02)
    assert prefill.host_bound is False
    assert prefill.host_s_per_kernel is None
    assert "waited for the device" in record.why_missing["prefill.host_s_per_kernel"]
    # With room in the queue the host runs ahead, and its time is its own.
    gpu.queue = 1024
    (record,) = _profile(tiny_source, tmp_path / "ahead", brief)
    assert record.stages["prefill"].host_s_per_kernel == pytest.approx(10e-6, rel=0.03)


def test_graphs_run_the_same_attention_and_need_no_host(
    gpu: FakeCuda, tiny_source: str, tmp_path: Path, brief: Options, monkeypatch: Any
) -> None:
    """Inside a capture attention is what it is outside; memory is that of eager mode."""
    library = pytest.importorskip("transformers.utils.import_utils")
    seen = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def watched(*args: Any, attn_mask: Any = None, is_causal: bool = False, **rest: Any) -> Any:
        if gpu.is_current_stream_capturing():
            seen.append((attn_mask, is_causal, library.is_cuda_stream_capturing()))
        return attend(*args, attn_mask=attn_mask, is_causal=is_causal, **rest)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    eager, graph = _profile(tiny_source, tmp_path, brief, mode=["eager", "cuda-graph"])
    assert (graph.status, graph.error) == ("ok", None)
    # Two layers. The last is false: for the library a capture is no tracing.
    assert seen == [(None, True, False)] * 2
    assert graph.attention_kernels == eager.attention_kernels
    assert graph.stages["prefill"].kernels == pytest.approx(eager.stages["prefill"].kernels, abs=12)
    assert graph.stages["prefill"].median_s < 0.6 * eager.stages["prefill"].median_s
    assert graph.stages["prefill"].busy_s > 0.8 * graph.stages["prefill"].median_s
    for name in ("vision", "prefill"):
        grown = [
            record.stages[name].peak_allocated_bytes - record.stages[name].resident_bytes
            for record in (eager, graph)
        ]
        assert grown[0] == grown[1] > 0
    assert eager.graph_pool_bytes is None
    assert graph.graph_pool_bytes > 0


def test_a_graph_that_cannot_be_captured_fails_alone(
    gpu: FakeCuda, tiny_source: str, tmp_path: Path, brief: Options, monkeypatch: Any
) -> None:
    from transformers.models.llama.modeling_llama import LlamaMLP

    forward = LlamaMLP.forward
    asks = iter([True])

    def reads(self: Any, x: Any) -> Any:
        if gpu.is_current_stream_capturing() and next(asks, False):
            float(x.sum())
        return forward(self, x)

    monkeypatch.setattr(LlamaMLP, "forward", reads)
    records = _profile(
        tiny_source, tmp_path, brief, mode="cuda-graph", visual_tokens=[1, 2], rounds=1
    )
    failed = [record for record in records if record.status == "failed"]
    assert len(failed) == 1
    assert "cannot be captured" in failed[0].error
    assert sum(record.status == "ok" for record in records) == 1
    assert gpu.current_stream() is gpu.main
    assert gpu.open_pools == []


def test_an_out_of_memory_is_a_result_and_the_next_point_runs(
    gpu: FakeCuda, tiny_source: str, tmp_path: Path, brief: Options
) -> None:
    small, large = _profile(tiny_source, tmp_path, brief, batch_size=[1, 64])
    # Above what filling the weights takes for a moment.
    peak = max(small.stages[TOTAL].peak_allocated_bytes, 6_000_000)
    gpu.memory_bytes = peak + (large.stages[TOTAL].peak_allocated_bytes - peak) // 2
    again = _profile(tiny_source, tmp_path / "tight", brief, batch_size=[1, 64])
    assert [record.status for record in again] == ["ok", "out-of-memory"]
    assert "out of memory" in again[1].error


def test_a_lost_context_ends_the_campaign_and_keeps_what_was_measured(
    gpu: FakeCuda, tiny_source: str, tmp_path: Path, brief: Options
) -> None:
    before = gpu.launches
    _profile(tiny_source, tmp_path / "one", brief)
    gpu.lose_after = gpu.launches + int(1.4 * (gpu.launches - before))
    with pytest.raises(DeviceUnavailableError, match=r"context was lost.*start again"):
        _profile(tiny_source, tmp_path, brief, visual_tokens=[16, 15, 14])
    kept = read_measurements(tmp_path)
    assert len(kept) >= 2  # that of the folder beside included
    assert all(record.status == "ok" for record in kept)
    gpu.lose_after = None
    records = _profile(tiny_source, tmp_path, brief, visual_tokens=[16, 15, 14])
    assert [record.status for record in records] == ["ok"] * 3


@pytest.mark.parametrize(
    "message",
    ["CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmEx`",
     "CUDA error: operation not permitted when stream is capturing"],
)  # fmt: skip
def test_an_error_that_leaves_the_context_whole_is_a_failed_point(
    gpu: FakeCuda, tiny_source: str, tmp_path: Path, brief: Options, monkeypatch: Any, message: str
) -> None:
    def fails(*_args: Any, **_kwargs: Any) -> Any:
        raise RuntimeError(message)

    monkeypatch.setattr("profiling.measuring.point.take_samples", fails)
    records = _profile(tiny_source, tmp_path, brief, visual_tokens=[1, 2])
    assert [record.status for record in records] == ["failed"] * 2
    assert message in records[0].error


@pytest.mark.parametrize("method", ["fastv(layer=1)", "vtw(layer=1)", "fitprune"])
def test_methods_inside_the_language_model_read_the_prompt_and_nothing_else(
    gpu: FakeCuda, tiny_source: str, tmp_path: Path, brief: Options, method: str, monkeypatch: Any
) -> None:
    """Neither transformers' check of placeholders nor our own checks read the device back.

    The prompt's ids are read at the start of a run, before anything is launched.
    """
    from profiling.subject.execution import Execution

    ran = []
    first_logits = Execution.first_logits

    def counted(self: Any) -> Any:
        before = gpu.waits.copy()
        output = first_logits(self)
        ran.append(gpu.waits - before)
        return output

    monkeypatch.setattr(Execution, "first_logits", counted)
    (record,) = _profile(tiny_source, tmp_path, brief, method=method, visual_tokens=None, keep=None)
    assert (record.status, record.error) == ("ok", None)
    # The first run is the one that is checked.
    assert all(dict(waits) == {"cpu": 1, "numpy": 1} for waits in ran[1:]), ran
    assert record.stages[TOTAL].idle_event_s


def test_the_device_is_found_by_its_name_and_sensors(
    gpu: FakeCuda, tiny_source: str, tmp_path: Path, brief: Options
) -> None:
    """Energy over a window in which the counter moved fifty times, begun and ended on a move."""
    gpu.law.overhead_s = 1.5e-3
    gpu.sensors.period_s = 0.04
    (record,) = _profile(
        tiny_source, tmp_path,
        replace(brief, energy=True, counters=False, memory=False, kernels=False), output_tokens=1,
    )  # fmt: skip
    windows = {window.stage: window for window in record.energy}
    assert set(windows) == {TOTAL, "prefill", "vision", "decode"}
    for window in windows.values():
        assert window.method == "nvml_counter"
        assert window.counter_period_s == pytest.approx(0.04, rel=0.2)
        assert window.window_s >= 50 * 0.04
        # All kernels, no gaps: 600 W.
        assert window.counter_j * window.repetitions / window.window_s == pytest.approx(
            600, rel=0.04
        )
    assert record.why_missing["busy_s"] == "the profiler pass was switched off"
    assert gpu.waits["synchronize"] > 0
