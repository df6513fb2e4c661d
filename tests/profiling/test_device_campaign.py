"""The campaign of a device, rehearsed on the CPU and on a fake GPU; killed and continued."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hardware_specs.errors import DeviceUnavailableError, InvalidInputError
from hardware_specs.files.reading import DamagedFileWarning
from hardware_specs.files.writing import appending
from profiling.device_campaign import (
    STEPS,
    CampaignPlan,
    check_records,
    points_of,
    run_device_campaign,
)
from profiling.measuring.stopping import StopRule, WarmUpRule
from profiling.microbench import suite
from profiling.microbench.suite import CPU_SUITE, run_microbenchmarks
from profiling.microbench.table import read_op_rows
from profiling.records.storage import read_measurements

if TYPE_CHECKING:
    from fake_cuda import FakeCuda

SUITE = replace(
    CPU_SUITE, rows=(1, 64), max_flops=1e6, max_bytes=1 << 13, peak_side=32, budget_s=0.0,
    sustained_s=0.0,
)  # fmt: skip


def _plan(source: str, step: str, device: str, **changes: Any) -> CampaignPlan:
    return CampaignPlan(
        step, device, source, "fp32", counts=(16, 1), closely=(16,), methods=("divprune", "fastv"),
        quantised=(), budget_s=1e6, suite=SUITE,
        rule=StopRule(min_samples=3, min_time_s=0.0, max_time_s=0.02, max_samples=3),
        warm_up=WarmUpRule(min_time_s=0.0, max_time_s=0.0),
        **changes,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def short_windows(known_cpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("profiling.measuring.point.measure_energy", _no_energy)
    # The host inside a module stack is the matter of the micro-benchmarks' own tests.
    monkeypatch.setattr(suite, "_module_kernel_seconds", lambda _clock, _device: [1e-5] * 3)


def _no_energy(stage: str, *_args: Any) -> Any:
    from profiling.records.readings import EnergyWindow

    return EnergyWindow(stage, "unavailable", why_missing={"energy_j": "left out here"})


PAGE = (Path(__file__).parents[2] / "docs" / "gpu.md").read_text(encoding="utf-8")


def _run(plan: CampaignPlan, folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Run a step; return its checks and what it said, which pytest's `-s` shows as a user sees it.

    What came out is a row of docs/gpu.md.
    """
    said: list[str] = []

    def tell(text: str) -> None:
        said.append(text)
        sys.stderr.write(f"{text}\n")

    sys.stderr.write(f"\n{plan.step} on {plan.device}\n")
    checks = run_device_campaign(plan, folder, tell=tell)
    held = f"{sum(item['ok'] for item in checks)} of {len(checks)}"
    ran, there = sum("bound by" in text for text in said), said[-1].split()[0]
    device = "fake GPU" if plan.device == "cuda" else "CPU"
    row = f"| {plan.step}, {device} | {ran} | {there} | {held} |"
    sys.stderr.write(f"{row}\n")
    assert row in PAGE
    return checks, said


def test_each_step_on_a_fake_gpu(gpu: FakeCuda, tiny_source: str, tmp_path: Path) -> None:
    checks, said = _run(_plan(tiny_source, "smoke", "cuda"), tmp_path)
    assert [item for item in checks if not item["ok"]] == []
    kinds = {item["check"] for item in checks}
    assert {
        "runs",
        "FLOPs of prefill",
        "attention as in eager mode",
        "kernels fill the graph",
    } <= kinds
    # The tiny model has no third layer, at which fastv is published.
    assert any("left out: fastv" in text for text in said)
    names = {path.name for path in tmp_path.iterdir()}
    assert {
        "environment.json",
        "ops.jsonl",
        "ops.json",
        "measurements.jsonl",
        "checks.json",
    } <= names
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["hardware"] == "nvidia-h200-sxm-141gb"
    smoke = read_measurements(tmp_path / "measurements.jsonl")
    assert {record.configuration.mode for record in smoke} == {"eager", "cuda-graph"}
    rows = (tmp_path / "ops.jsonl").read_text().splitlines()

    _run(_plan(tiny_source, "core", "cuda"), tmp_path)
    core = read_measurements(tmp_path / "measurements.jsonl")
    # The points of the sweep that `smoke` had measured are taken over.
    assert len(core) > len(smoke)
    assert {record.configuration.key for record in smoke} <= {r.configuration.key for r in core}
    assert (tmp_path / "ops.jsonl").read_text().splitlines()[: len(rows)] == rows
    assert len(list((tmp_path / "passes").glob("*_ops.json"))) == 1


def test_a_lost_device_keeps_what_was_measured(
    gpu: FakeCuda, tiny_source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows and records are on disk when the context goes, and are not measured again."""
    plan = replace(_plan(tiny_source, "smoke", "cuda"), methods=(), suite=replace(SUITE, rows=(1,)))
    before = gpu.launches
    run_device_campaign(plan, tmp_path / "whole")
    whole = gpu.launches - before
    rows = len((tmp_path / "whole" / "ops.jsonl").read_text().splitlines())
    assert rows > 20
    gpu.lose_after = gpu.launches + int(0.8 * whole)
    with pytest.raises(DeviceUnavailableError, match="start again"):
        run_device_campaign(plan, tmp_path / "lost")
    kept = read_measurements(tmp_path / "lost" / "measurements.jsonl")
    assert kept
    assert len((tmp_path / "lost" / "ops.jsonl").read_text().splitlines()) == rows
    gpu.lose_after = None
    ran: list[str] = []
    run_device_campaign(plan, tmp_path / "lost", tell=ran.append)
    assert len((tmp_path / "lost" / "ops.jsonl").read_text().splitlines()) == rows
    assert not any(record.configuration.key in text for record in kept for text in ran)


def test_each_step_on_the_cpu(tiny_source: str, tmp_path: Path) -> None:
    """One after another into the same folder; nothing that is there is measured again."""
    counts, seen = {}, set()
    for step in STEPS:
        checks, said = _run(_plan(tiny_source, step, "cpu"), tmp_path)
        assert checks
        assert all(item["ok"] for item in checks), checks
        counts[step] = len(read_measurements(tmp_path / "measurements.jsonl"))
        ran = [line.split(":")[0].strip() for line in said if "bound by" in line]
        # `more` measures the sweep a second time, for the spread between rounds.
        assert step == "more" or not seen & set(ran)
        seen |= set(ran)
    assert 0 < counts["smoke"] < counts["core"] < counts["more"]
    records = read_measurements(tmp_path / "measurements.jsonl")
    assert {record.configuration.mode for record in records} == {"eager"}
    assert any(record.configuration.method == "divprune" for record in records)
    assert list((tmp_path / "passes").glob("*_ops.json"))


def test_rows_cut_short_or_of_another_device_are_measured_again(tmp_path: Path) -> None:
    """A kill cuts the last line; rows of a GPU are no rows of this CPU."""
    path = tmp_path / "ops.jsonl"
    suite = replace(SUITE, rows=(1,), batches=())
    first: list[dict[str, Any]] = []
    with appending(path) as append:
        run_microbenchmarks(
            "cpu", model="llava-1.5-7b@layers=1,width=1/16", dtypes=("fp32",), suite=suite,
            on_row=lambda row: (first.append(row), append(json.dumps(row)))[0],
        )  # fmt: skip
    lines = path.read_text().splitlines()
    other = json.dumps({**first[-1], "device": "NVIDIA H200"})
    path.write_text("\n".join([*lines[:-2], other, lines[-2][:40]]))
    with pytest.warns(DamagedFileWarning, match=rf"line {len(lines)}: "):
        known = read_op_rows(path)
    assert len(known) == len(lines) - 1
    again: list[dict[str, Any]] = []
    table = run_microbenchmarks(
        "cpu", model="llava-1.5-7b@layers=1,width=1/16", dtypes=("fp32",), suite=suite, known=known,
        on_row=again.append,
    )  # fmt: skip
    assert len(again) == 2
    assert len(table.rows) == len(lines)
    assert {row["device"] for row in table.rows} == {first[0]["device"]}
    assert read_op_rows(tmp_path / "none.jsonl") == []


def test_a_step_without_time_still_leaves_its_files(tiny_source: str, tmp_path: Path) -> None:
    plan = replace(_plan(tiny_source, "more", "cpu"), budget_s=1e5)
    assert [item["ok"] for item in run_device_campaign(plan, tmp_path, spent_s=2e5)] == [False]
    assert (tmp_path / "checks.json").exists()


def test_more_runs_the_model_on_quantised_weights_first() -> None:
    points = dict(points_of(CampaignPlan("more"), "cuda", lambda _text: None))
    labels = list(dict.fromkeys(point.dtype for point in points))
    assert labels == ["w4a16", "fp8", "bf16"]
    assert {point.mode for point in points} == {"eager", "cuda-graph"}


def test_more_on_a_fake_gpu(gpu: FakeCuda, tiny_source: str, tmp_path: Path) -> None:
    """Quantised weights eagerly and as graphs, then batches, twice each."""
    pytest.importorskip("torchao")
    plan = replace(_plan(tiny_source, "more", "cuda"), counts=(1,), closely=(1,))
    _run(replace(plan, quantised=("w8a16",)), tmp_path)
    records = read_measurements(tmp_path / "measurements.jsonl")
    ran = Counter((r.configuration.dtype, r.configuration.mode, r.status) for r in records)
    assert ran == {
        ("w8a16", "eager", "ok"): 2, ("w8a16", "cuda-graph", "ok"): 2,
        ("fp32", "eager", "ok"): 4, ("fp32", "cuda-graph", "ok"): 4,
    }  # fmt: skip
    assert not (tmp_path / "ops.json").exists()


def test_core_begins_with_what_is_looked_at_closely() -> None:
    """Energy and kernels at 576 and 64 tokens in both modes, then the sweep at batch 1."""
    plan = CampaignPlan("core", methods=())
    points = list(points_of(plan, "cuda", lambda _text: None))
    close = points[:4]
    assert {(point.visual_tokens, point.mode) for point, _ in close} == {
        (576, "eager"), (576, "cuda-graph"), (64, "eager"), (64, "cuda-graph")
    }  # fmt: skip
    assert all(options.energy and options.kernels for _, options in close)
    assert {point.visual_tokens for point, _ in points if point.batch_size == 1} == set(plan.counts)
    assert points[-1][0].batch_size == 8


def test_the_script_says_first_what_python_lacks(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho pydantic\n")
    python.chmod(0o755)
    script = Path(__file__).parents[2] / "benchmarks" / "gpu_campaign.sh"
    done = subprocess.run(
        ["bash", str(script), "smoke", str(tmp_path / "out")],
        env={**os.environ, "PYTHON": str(python)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "this Python lacks: pydantic" in done.stderr


def test_a_step_nobody_knows_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="none of smoke, core, more"):
        CampaignPlan("everything")


def test_failed_points_and_other_flops_are_named(lab: Any) -> None:
    good = lab.measured(lab.configuration())
    odd = lab.measured(lab.configuration(visual_tokens=16), flops=1)
    failed = replace(good, status="failed", error="no", stages={})
    assert all(item["ok"] for item in check_records([good]))
    wrong = [item for item in check_records([good, odd, failed]) if not item["ok"]]
    assert {item["check"] for item in wrong} >= {"runs", "FLOPs of prefill"}
    # A budget that was over before the first point is no success.
    assert [item["ok"] for item in check_records([])] == [False]
