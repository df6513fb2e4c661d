from __future__ import annotations

import json
from dataclasses import replace

import pytest

from hardware_specs import HardwareSpec, save_hardware
from hardware_specs.errors import InvalidInputError
from hardware_specs.spec import MeasuredRate
from profiling.microbench.table import OpTable
from profiling.whole_loop import (
    LoopPlan,
    _device,
    at_least,
    configurations_of,
    joined,
    one_thread,
    run_loop,
)

PLAN = LoopPlan(
    device="cpu",
    model="llava-1.5-7b",
    scale="layers=1,width=1/16",
    visual_tokens=(64, 16, 1),
    methods=("divprune",),
    method_tokens=(16,),
    output_tokens=1,
    rounds=1,
    op_rounds=1,
)


def cpu(**values):
    rates = {"fp32": 8e10}
    given = {
        "id": "cpu-measured",
        "name": "a CPU",
        "vendor": "unknown",
        "architecture": "x86_64",
        "bandwidth_bytes_per_s": 2e10,
        "peaks": {"fp32.vector": 1.6e11},
        "sm_count": 2,
        "measured": tuple(
            MeasuredRate(what="gemm_one_thread", dtype=dtype, source="measured", max=rate)
            for dtype, rate in rates.items()
        ),
    }
    return HardwareSpec(**given | values)


def test_one_thread_has_its_own_peak():
    spec = one_thread(cpu())
    assert spec.peaks["fp32.vector"] == 8e10
    assert spec.sm_count == 1
    with pytest.raises(InvalidInputError, match="no rate of a single thread"):
        one_thread(cpu(measured=()))


def test_a_peak_is_the_best_rate_ever_seen():
    ceilings = {"peak_flop_per_s.fp32": 2e11, "copy_bytes_per_s": 3e10}
    spec = at_least(cpu(), ceilings)
    assert spec.peaks["fp32.vector"] == 2e11
    assert spec.bandwidth_bytes_per_s == 3e10
    assert at_least(cpu(), {}).peaks == cpu().peaks


def test_methods_run_eagerly_whatever_the_mode():
    plan = LoopPlan(
        device="cuda", visual_tokens=(64,), methods=("fastv",), method_tokens=(16,),
        modes=("eager", "cuda-graph"),
    )  # fmt: skip
    runs = [(run.method, run.mode) for run in configurations_of(plan)]
    assert runs == [("none", "eager"), ("none", "cuda-graph"), ("fastv", "eager")]


def test_defaults_fit_the_device():
    assert LoopPlan(device="cpu").full_model == "llava-1.5-7b@layers=4,width=1/4"
    assert LoopPlan(device="cuda").full_model == "llava-1.5-7b"
    assert (LoopPlan(device="cpu").label, LoopPlan(device="cuda").label) == ("fp32", "bf16")
    with pytest.raises(InvalidInputError, match="threads=3"):
        LoopPlan(threads=3)


def in_known_times(tables):
    """Give the ops that ran the times of a quiet machine: a busy one's cannot be fitted."""
    ops = joined(tables)
    rows = [
        row
        if row["op_class"] == "host"
        else {**row, "time_s": 1.3 * max(row["flops"] / 8e10, row["bytes"] / 2e10) + 2e-6}
        for row in ops.rows
    ]
    return replace(ops, rows=tuple(rows), ceilings={})


def test_the_whole_loop_runs_on_a_cpu_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    monkeypatch.setattr("profiling.whole_loop.joined", in_known_times)
    from hardware_specs.cpu import cpu_info
    from profiling.instruments.environment import cpu_name
    from profiling.measuring.point import Options
    from profiling.measuring.stopping import StopRule, WarmUpRule
    from profiling.microbench.suite import Suite

    # A measured processor lies there already: the probe of a few seconds is not what is tested.
    save_hardware(one_thread(cpu(name=cpu_name(cpu_info()))), tmp_path / "cpu-measured.yaml")
    suite = Suite((1, 8, 32, 64, 96), (1,), 1e8, 1 << 16, 64, 0.0, 30.0)
    options = Options(
        rule=StopRule(max_time_s=0.02, min_samples=3, min_time_s=0.0),
        warm_up=WarmUpRule(min_time_s=0.0, max_time_s=0.0),
    )
    steps = []
    found = run_loop(
        PLAN, tmp_path, options=options, suite=suite, on_step=lambda what, *_: steps.append(what)
    )
    result = found.result
    assert result.summary["runs"] == 4
    # Counted FLOPs and live bytes do not depend on this machine; times do.
    assert result.summary["flops"]["equal"] == result.summary["flops"]["rows"] > 15
    assert result.summary["memory"]["max"] < 0.1
    assert result.calibration.hardware_id == "cpu-measured"
    assert {row["stage"] for row in result.rows} >= {"vision", "prefill", "decode", "total"}
    assert result.ops
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {"ops.json", "calibration.json", "runs", "reconciliation.json", "report.html"}
    document = json.loads((tmp_path / "reconciliation.json").read_text())
    assert len(document["rows"]) == len(result.rows)
    assert "fitting the calibration" in steps
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}

    steps.clear()
    again = run_loop(
        PLAN, tmp_path, options=options, suite=suite, on_step=lambda what, *_: steps.append(what)
    )
    assert set(steps) == {"reconciling"}
    assert again.result.rows == result.rows
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_rounds_of_single_ops_are_joined():
    from profiling.microbench.table import OpTable

    first = OpTable(({"op_class": "gemm", "time_s": 1.0},), ceilings={"a": 1.0})
    second = OpTable(({"op_class": "gemm", "time_s": 2.0},), ceilings={"a": 3.0, "b": 2.0})
    table = joined([first, second])
    assert [row["time_s"] for row in table.rows] == [1.0, 2.0]
    assert table.ceilings == {"a": 3.0, "b": 2.0}


def test_waiting_for_quiet_ends_with_the_others_or_with_patience(monkeypatch):
    from profiling.instruments import watch
    from profiling.whole_loop import wait_for_quiet

    shares = iter([0.9, 0.8, 0.1, 0.9])
    seen = []

    def share(_self):
        seen.append(next(shares))
        return seen[-1]

    monkeypatch.setattr(watch.HostLoad, "foreign_share", share)
    wait_for_quiet(0.3, window_s=0.0)
    assert seen == [0.9, 0.8, 0.1]
    wait_for_quiet(None)
    wait_for_quiet(0.3, window_s=0.01, patience_s=0.001)
    assert len(seen) == 4


def test_a_numbered_gpu_is_found_by_its_name(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("hardware_specs.detect_hardware", lambda kind: asked.append(kind))
    _device(LoopPlan(device="cuda:1"), tmp_path, OpTable(rows=()), lambda *_: None)
    assert asked == ["cuda"]
