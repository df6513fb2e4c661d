"""The predicted timeline: a valid trace whose events add up to the estimate."""

from __future__ import annotations

import json
import math

import pytest

from costmodel import estimate
from costmodel.timeline import timeline
from hardware_specs.errors import UnsupportedError
from vlm_roofline.cli import main

CASES = {
    "fused": {},
    "host-bound": {"execution": "hf-eager", "output_tokens": 3},
    "a method inside": {"execution": "hf-eager", "method": "fastv", "output_tokens": 2},
    "one layer at a time": {"method": "tome"},
    "too many to draw each": {"output_tokens": 2000},
    "a processor": {"hardware": "cpu-amd-epyc-9654", "precision": "fp32"},
    "two kinds of layers": {"model": "gemma-3-4b", "text_tokens": 900, "output_tokens": 2},
}


@pytest.mark.parametrize("case", CASES)
def test_events_add_up_and_nest(case: str) -> None:
    cost = estimate(**{"model": "llava-1.5-7b", "hardware": "a100", **CASES[case]})
    trace = json.loads(json.dumps(timeline(cost), allow_nan=False))
    names = {
        e["tid"]: e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "thread_name"
    }
    events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert {event["ph"] for event in trace["traceEvents"]} == {"X", "M"}
    # Nanoseconds: an event of n executions is rounded once.
    stages = {event["name"]: event for event in events if event["cat"] == "stage"}
    assert math.isclose(
        sum(event["dur"] for event in stages.values()) / 1e6, cost.totals.time_s, abs_tol=1e-8
    )
    for name, stage in stages.items():
        ops = [e for e in events if e["cat"] == "op" and names[e["tid"]] == name]
        assert math.isclose(
            sum(op["dur"] for op in ops) / 1e6, cost.stages[name].device_s, abs_tol=1e-9 * len(ops)
        )
        assert math.isclose(sum(op["args"]["flops"] for op in ops), cost.stages[name].flops)
        # On its track every event lies in the one that is open, or after it.
        open_until: list[int] = []
        for event in (e for e in events if e["tid"] == stage["tid"]):
            start = round(event["ts"] * 1e3)
            end = start + round(event["dur"] * 1e3)
            while open_until and open_until[-1] <= start:
                open_until.pop()
            assert not open_until or end <= open_until[-1], event
            if end > start:
                open_until.append(end)


def test_every_layer_and_step_stands_there() -> None:
    cost = estimate("llava-1.5-7b", "a100", method="fastv", output_tokens=2, execution="hf-eager")
    events = timeline(cost)["traceEvents"]
    prefill = next(e["tid"] for e in events if e["name"] == "prefill")
    layers = [e["name"] for e in events if e["cat"] == "layer" and e["tid"] == prefill]
    assert layers == [f"layer {layer}" for layer in range(32)]
    assert sum(e["name"] == "q_proj[2:32]" and e["tid"] == prefill for e in events) == 30
    assert [e["name"] for e in events if e["cat"] == "step"] == ["step 0", "step 1"]


def test_a_host_bound_stage_has_gaps() -> None:
    cost = estimate("llava-1.5-7b", "a100", execution="hf-eager", output_tokens=1)
    assert cost.stages["decode"].bound == "host"
    events = timeline(cost)["traceEvents"]
    (tid,) = {e["tid"] for e in events if e["name"] == "decode"}
    one, two = [e for e in events if e["tid"] == tid and e["cat"] == "op"][:2]
    gap = (cost.stages["decode"].time_s - cost.stages["decode"].device_s) * 1e6
    assert two["ts"] - one["ts"] - one["dur"] == pytest.approx(
        gap / cost.stages["decode"].kernels, abs=2e-3
    )


def test_a_convention_has_no_times() -> None:
    with pytest.raises(UnsupportedError, match="needs times"):
        timeline(estimate("llava-1.5-7b", "a100", convention="fastv"))


def test_from_the_command_line(tmp_path, capsys) -> None:
    path = tmp_path / "trace.json"
    line = ["plot", "timeline", "llava-1.5-7b", "-d", "l4", "--out", str(path)]
    assert main([*line, "--json"]) == 0
    trace = json.loads(path.read_text())
    assert json.loads(capsys.readouterr().out)["events"] == len(trace["traceEvents"])
    assert main([*line[:-1], str(tmp_path / "trace.png")]) == 2
    assert "must end in .json" in capsys.readouterr().err
