"""What a GPU does besides a plain point: other families, weights, sensors, and whatever goes wrong."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from tiny_families import write_family

from costmodel.models import load_model
from hardware_specs.errors import (
    DeviceUnavailableError,
    InvalidInputError,
    UnknownHardwareError,
    UnsupportedError,
)
from hardware_specs.files.reading import DamagedFileWarning
from profiling.device_campaign import CampaignPlan, run_device_campaign
from profiling.devices.cuda import CudaDevice
from profiling.devices.device import clock_for, open_device
from profiling.instruments.energy import measure_energy
from profiling.instruments.nvml import open_monitor
from profiling.measuring.campaign import run_campaign
from profiling.measuring.kernel_pass import run_kernel_passes
from profiling.measuring.planning import grid
from profiling.measuring.point import Options, measure_point
from profiling.measuring.profile import profile
from profiling.measuring.sampling import take_samples
from profiling.measuring.stopping import StopRule, WarmUpRule
from profiling.microbench.cases import gemm_case
from profiling.microbench.suite import CPU_SUITE, default_suite
from profiling.microbench.timing import time_case
from profiling.records.measurement import TOTAL
from profiling.subject.models import build_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fake_cuda import FakeCuda

BRIEF = Options(
    rule=StopRule(min_samples=3, min_time_s=0.0, max_time_s=0.01, max_samples=3),
    warm_up=WarmUpRule(min_time_s=0.0, max_time_s=0.0),
    energy=False, kernels=False,
)  # fmt: skip


def _point(source: Any, options: Options = BRIEF, **changes: Any) -> Any:
    (record,) = profile(
        source,
        **{"device": "cuda", "dtype": "fp32", "text_tokens": 7, "options": options, **changes},
    )
    return record


# ---------------------------------------------------------------------- what runs


@pytest.mark.parametrize(
    ("family", "changes", "tokens"),
    [("llava_next", {"image_size": (84, 168)}, 108 + 6), ("llava_onevision", {"images": 2}, 72 + 2),
     ("video_llava", {"visual_tokens": 74}, 74)],
)  # fmt: skip
def test_families_of_tiles_and_frames(
    gpu: FakeCuda, tmp_path: Path, family: str, changes: dict[str, Any], tokens: int
) -> None:
    record = _point(write_family(family, tmp_path), **changes)
    assert (record.status, record.error) == ("ok", None)
    assert record.stages["vision"].median_s > 0
    if family != "video_llava":
        assert record.tokens.visual_llm == pytest.approx(tokens, abs=4)


@pytest.mark.parametrize(
    ("given", "tokens"), [({"image_size": (256, 256)}, 64), ({"visual_tokens": 20}, 20)]
)
def test_a_tower_of_the_pictures_own_resolution(
    gpu: FakeCuda, given: dict[str, Any], tokens: int
) -> None:
    record = _point("qwen3-vl-2b@layers=1,width=1/8", **given)
    assert (record.status, record.error, record.tokens.visual_llm) == ("ok", None, tokens)


def test_a_language_model_without_a_tower(gpu: FakeCuda, tiny_text_source: str) -> None:
    record = _point(tiny_text_source)
    assert set(record.stages) == {"prefill", TOTAL}
    assert record.stages["prefill"].median_s > 0
    with pytest.raises(UnsupportedError, match="has none"):
        _point(tiny_text_source, method="divprune")


def test_quantised_weights(gpu: FakeCuda, tiny_source: str) -> None:
    pytest.importorskip("torchao")
    record = _point(tiny_source, dtype="w8a16", visual_tokens=16)
    assert (record.status, record.error) == ("ok", None)
    assert record.stages["prefill"].flops is None
    assert "quantised" in record.why_missing["flops"]
    row = time_case(gemm_case(4, 64, 64, "w8a16", "cpu"), open_device("cuda"), budget_s=0.0)
    assert row["dtype"] == "w8a16"
    # FP8 products need compute capability 8.9.
    gpu.get_device_capability = lambda _place: (8, 0)  # type: ignore[method-assign]
    with pytest.raises(UnsupportedError, match=r"needs CUDA compute capability 8\.9"):
        _point(tiny_source, dtype="fp8", visual_tokens=16)


def test_real_weights(gpu: FakeCuda, tiny: Any, tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path)
    loaded = build_model(str(tmp_path), dtype="fp32", device="cuda", weights="real")
    assert torch.equal(loaded.lm_head.weight, tiny.lm_head.weight)


def test_cold_caches_are_flushed(gpu: FakeCuda, tiny_source: str) -> None:
    plain = replace(BRIEF, counters=False, memory=False)
    warm, cold = (_point(tiny_source, plain, visual_tokens=4, cache=c) for c in ("warm", "cold"))
    assert cold.status == "ok"
    # The flush ends before the first mark, and while it runs the host issues what follows.
    assert 0 < cold.stages["vision"].median_s < warm.stages["vision"].median_s


def test_the_host_inside_a_module_stack(gpu: FakeCuda) -> None:
    """Launches take 10 us each, nothing else takes time: so does each kernel."""
    from profiling.microbench.suite import _module_kernel_seconds

    device = open_device("cuda")
    with torch.no_grad():
        seconds = _module_kernel_seconds(device.clock(), device)
    assert sorted(seconds)[len(seconds) // 2] == pytest.approx(gpu.issue_s, rel=0.02)
    assert default_suite("cuda").total_s == 60.0


def test_a_kept_trace_names_no_process_of_this_machine(
    gpu: FakeCuda, tiny_source: str, tmp_path: Path
) -> None:
    points = grid([tiny_source], dtypes=["fp32"], visual_tokens=[4], device="cuda")
    ((_, path),) = run_kernel_passes(points, tmp_path, traces=True)
    assert path is not None
    (trace,) = tmp_path.glob("*_trace.json.gz")
    from profiling.tracing.kernels import read_trace

    assert len(read_trace(trace)) > 20


def test_compiled(gpu: FakeCuda, tiny_source: str) -> None:
    options = replace(BRIEF, compile_backend="eager", counters=False, memory=False)
    record = _point(tiny_source, options, mode="compile", visual_tokens=4)
    assert (record.status, record.error, record.configuration.mode) == ("ok", None, "compile")


def test_one_point_by_itself(gpu: FakeCuda, tiny_source: str) -> None:
    """Sensors are opened and the device described for it."""
    (configuration,) = grid([tiny_source], dtypes=["fp32"], visual_tokens=[4], device="cuda")
    model = build_model(tiny_source, dtype="fp32", device="cuda")
    record = measure_point(model, load_model(tiny_source), configuration, options=BRIEF)
    assert record.environment["device_name"] == "NVIDIA H200"
    assert record.capabilities["energy"].startswith("available")


def test_a_campaign_tells_how_much_is_left(gpu: FakeCuda, tiny_source: str, tmp_path: Path) -> None:
    points = grid([tiny_source], dtypes=["fp32"], visual_tokens=[4, 2], device="cuda")
    plans: list[tuple[int, int]] = []
    for some in (points[:1], points):
        for _record in run_campaign(
            some, tmp_path, rounds=1, options=BRIEF, on_plan=lambda *plan: plans.append(plan)
        ):
            pass
    assert plans == [(1, 0), (2, 1)]


# ---------------------------------------------------------------------- when a point ends


class _Kernels:
    """Twenty kernels, each a multiple of 1 ms that depends on the run."""

    def __init__(self, gpu: FakeCuda, factor: Callable[[int], float]) -> None:
        self.gpu, self.factor, self.runs, self.tensor = gpu, factor, 0, torch.ones(1)

    def run(self, observer: Any = None, *, decode: bool = True) -> None:
        self.gpu.law.overhead_s = 1e-3 * self.factor(self.runs)
        self.runs += 1
        if observer is not None:
            observer.begin(TOTAL)
        for _ in range(20):
            self.tensor.add_(1.0)
        if observer is not None:
            observer.end(TOTAL)


@pytest.mark.parametrize(
    ("factor", "reason"),
    [(lambda run: 1 + 0.002 * (run % 2), "noise-under-target"),
     (lambda run: 1 + 0.2 * (run % 2), "noise-stable"), (lambda run: 1 + 0.01 * run, "time-out")],
)  # fmt: skip
def test_sampling_ends_for_a_reason(
    gpu: FakeCuda, factor: Callable[[int], float], reason: str
) -> None:
    """Every second run is slower by a little or by much; or each is slower than the one before."""
    samples = take_samples(
        _Kernels(gpu, factor), clock_for("cuda"),
        rule=StopRule(target_dispersion=0.01, min_time_s=0.0, max_time_s=3.0),
        warm_up=WarmUpRule(min_time_s=0.1, max_time_s=5.0, tolerance=0.5),
    )  # fmt: skip
    assert samples.sampling.stop_reason == reason
    assert samples.sampling.steady is True
    event_s = samples.stages[TOTAL].event_s
    assert min(event_s) == pytest.approx(20e-3, rel=0.2)


def test_latencies_of_long_runs_are_few(gpu: FakeCuda) -> None:
    """Runs of 0.6 s: the least number of them, where shorter ones have ten."""
    rule = StopRule(min_samples=3, min_time_s=0.0, max_time_s=0.1, max_samples=20)
    warm_up = WarmUpRule(min_time_s=0.0, max_time_s=0.0)
    for factor, runs in ((30.0, 3), (1.0, 10)):
        target = _Kernels(gpu, lambda _run, factor=factor: factor)
        samples = take_samples(target, clock_for("cuda"), rule=rule, warm_up=warm_up)
        assert len(samples.stages[TOTAL].idle_event_s) == runs


def test_throttled_samples_are_thrown_away(gpu: FakeCuda, tiny_source: str, sensors: Any) -> None:
    """The device is too hot for its first checks, then cools down; or it never does."""
    hot, checks = 0x40, []
    sensors.nvmlDeviceGetCurrentClocksEventReasons = lambda _handle: (
        checks.append(1) or (hot if len(checks) < 5 else 0)
    )
    record = _point(tiny_source, visual_tokens=4)
    assert record.status == "ok"
    assert len(record.sampling.rejected_s) > 0
    assert "hw-thermal" in record.device_state.throttle_reasons
    checks.clear()
    sensors.nvmlDeviceGetCurrentClocksEventReasons = lambda _handle: hot
    never = _point(tiny_source, replace(BRIEF, patience_s=0.5), visual_tokens=4)
    assert never.sampling.stop_reason == "throttled"
    assert "every chunk was rejected" in never.why_missing["stages"]


# ---------------------------------------------------------------------- sensors


def _window(gpu: FakeCuda, *, polled: bool = True) -> Any:
    """Energy of runs of 20 ms of kernels; the thread that polls the power looks once in each."""
    tensor, monitor, looked = torch.ones(4), open_monitor("cuda"), threading.Event()
    gpu.law.overhead_s = 20e-3

    class Watched:
        capabilities, energy_j = monitor.capabilities, monitor.energy_j

        def power_w(self) -> float | None:
            looked.set()
            return monitor.power_w()

    def run() -> None:
        tensor.add_(1.0)
        if polled:
            looked.clear()
            looked.wait(1.0)

    return measure_energy("prefill", run, cast("Any", Watched()), clock_for("cuda"), window_s=0.2)


def test_without_a_counter_power_is_integrated(gpu: FakeCuda, sensors: Any) -> None:
    sensors.failing["nvmlDeviceGetTotalEnergyConsumption"] = 3
    window = _window(gpu)
    assert window.method == "power_integral"
    assert window.energy_j == window.integral_j > 0
    assert "NotSupported" in window.why_missing["counter_j"]


def test_a_counter_that_stands_still_counts_nothing(gpu: FakeCuda, sensors: Any) -> None:
    sensors.period_s = 1e9
    for name in ("nvmlDeviceGetFieldValues", "nvmlDeviceGetPowerUsage"):
        sensors.failing[name] = 3
    window = _window(gpu, polled=False)
    assert (window.method, window.energy_j) == ("unavailable", None)
    assert "did not move" in window.why_missing["energy_j"]
    sensors.failing["nvmlDeviceGetTotalEnergyConsumption"] = 3
    blind = _window(gpu, polled=False)
    assert (blind.method, blind.window_s) == ("unavailable", None)


# ---------------------------------------------------------------------- what goes wrong


def test_a_model_that_does_not_fit_is_a_result(
    gpu: FakeCuda, tiny_source: str, tmp_path: Path
) -> None:
    gpu.memory_bytes = gpu.live_bytes + 1000
    record = _point(tiny_source, out=tmp_path, visual_tokens=16)
    assert record.status == "out-of-memory"
    assert record.stages == {}
    gpu.memory_bytes = 10**12
    points = grid([tiny_source], dtypes=["fp32"], visual_tokens=[4], batch_sizes=[1, 512],
                  device="cuda")  # fmt: skip
    passes = run_kernel_passes(points, tmp_path / "passes")
    assert next(passes)[1] is not None
    gpu.memory_bytes = gpu.live_bytes + 2_000_000
    assert next(passes)[1] is None


def test_a_campaign_on_a_full_device_says_so(
    gpu: FakeCuda, tiny_source: str, tmp_path: Path
) -> None:
    """Every point is a record, no check but that it ran is made of it; a row cut short is named."""
    gpu.memory_bytes = gpu.live_bytes + 1000
    suite = replace(CPU_SUITE, rows=(1,), max_flops=1e6, max_bytes=1 << 13, peak_side=32)
    plan = CampaignPlan("smoke", "cuda", tiny_source, "fp32", closely=(4,), methods=(),
                        quantised=(), suite=suite)  # fmt: skip
    (tmp_path / "ops.jsonl").write_text('{"op_class": "ge')
    said: list[str] = []
    with pytest.warns(DamagedFileWarning, match="line 1"):
        checks = run_device_campaign(plan, tmp_path, tell=said.append)
    assert {(item["check"], item["ok"]) for item in checks} == {("runs", False)}
    assert sum("out-of-memory" in text for text in said) == len(checks) > 2


def test_after_a_capture_that_spoils_the_process_no_other_is_tried(
    gpu: FakeCuda, tiny_source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from profiling.devices.cuda import CudaGraphs

    graphs = open_device("cuda").graphs()
    cell = torch.ones(1)
    made = iter([gpu.CUDAGraph()])

    def one_only() -> Any:
        for graph in made:
            return graph
        raise RuntimeError("no further graph")

    monkeypatch.setattr(gpu, "CUDAGraph", one_only)
    with pytest.raises(UnsupportedError, match="cannot be captured"):
        graphs.capture(lambda: float(cell) if gpu.is_current_stream_capturing() else cell + cell)
    assert CudaGraphs.spoilt is not None
    with pytest.raises(DeviceUnavailableError, match="start again"):
        graphs.capture(lambda: cell + cell)
    with pytest.raises(DeviceUnavailableError, match="can capture no CUDA graph"):
        _point(tiny_source, mode="cuda-graph", visual_tokens=4)


def test_a_capture_without_memory_is_an_out_of_memory(gpu: FakeCuda) -> None:
    graphs = open_device("cuda").graphs()

    def work() -> Any:
        if gpu.is_current_stream_capturing():
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.ones(1) + 1

    with pytest.raises(torch.OutOfMemoryError):
        graphs.capture(work)
    assert gpu.current_stream() is gpu.main
    assert graphs.spoilt is None


def test_devices_that_are_not_there_are_refused(gpu: FakeCuda) -> None:
    with pytest.raises(DeviceUnavailableError, match="no device cuda:3: there are 1"):
        open_device("cuda:3")
    with pytest.raises(InvalidInputError, match="not one of cuda"):
        open_device("cuda:first")
    with pytest.raises(InvalidInputError, match="not one of cuda"):
        open_device("meta")
    gpu.is_available = lambda: False  # type: ignore[method-assign]
    with pytest.raises(DeviceUnavailableError, match="sees none"):
        CudaDevice("cuda")


def test_an_unknown_gpu_is_measured_all_the_same(
    gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    from profiling.device_campaign import _environment

    def unknown(_kind: str) -> Any:
        raise UnknownHardwareError("NVIDIA H999", ("nvidia-h200-sxm-141gb",))

    monkeypatch.setattr("hardware_specs.detect_hardware", unknown)
    found = _environment(open_device("cuda"))
    assert "not recognised" in found["hardware"]
    assert json.dumps(found)


def test_freed_memory_is_given_back_unless_the_device_is_lost(gpu: FakeCuda) -> None:
    device = open_device("cuda")
    gpu.reserved = 10**9
    device.release_memory()
    assert gpu.reserved == gpu.live_bytes
    gpu.lose_after = gpu.launches
    device.release_memory()
    gpu.lose_after = None

    def fails() -> None:
        raise RuntimeError("an error of the allocator")

    gpu.empty_cache = fails  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="of the allocator"):
        device.release_memory()
