"""The profiler pass: a real CPU trace, and CUDA traces written by hand in Kineto's format."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from costmodel import estimate
from hardware_specs.errors import InvalidFileError, OutputError
from profiling.subject.execution import Execution
from profiling.tracing.events import gather
from profiling.tracing.kernels import attribute, op_table, read_trace, trace_run, work_by_stage
from profiling.tracing.op_names import class_of, op_of

if TYPE_CHECKING:
    from pathlib import Path

LAYER = "module:model.language_model.layers.0"


def _range(name: str, ts: float, dur: float, tid: int = 1) -> dict[str, Any]:
    return {"ph": "X", "cat": "user_annotation", "name": name, "ts": ts, "dur": dur, "tid": tid}


def _op(name: str, ts: float, dur: float, tid: int = 1) -> dict[str, Any]:
    return {"ph": "X", "cat": "cpu_op", "name": name, "ts": ts, "dur": dur, "tid": tid}


def _launch(
    ts: float, correlation: int, tid: int = 1, name: str = "cudaLaunchKernel"
) -> dict[str, Any]:
    return {"ph": "X", "cat": "cuda_runtime", "name": name, "ts": ts, "dur": 1.0, "tid": tid,
            "args": {"correlation": correlation}}  # fmt: skip


def _kernel(
    name: str, ts: float, dur: float, correlation: int, cat: str = "kernel"
) -> dict[str, Any]:
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "tid": 7,
            "args": {"correlation": correlation, "stream": 7}}  # fmt: skip


#: One prefill of one layer: kernels run long after they were launched, and out of step with the host.
EVENTS = [
    {"ph": "M", "name": "process_name", "args": {"name": "python"}},
    _kernel("gemm_q", 900.0, 30.0, 11),
    _kernel("rope_mul", 935.0, 4.0, 12),
    _kernel("Memcpy DtoD", 940.0, 2.0, 13, "gpu_memcpy"),
    _kernel("flash_fwd", 950.0, 50.0, 14),
    _kernel("add", 1001.0, 3.0, 15),
    _kernel("lost", 1100.0, 5.0, 99),
    _kernel("gemm_head", 1010.0, 9.0, 16),
    _range("stage:total", 0.0, 500.0),
    _range("stage:prefill", 10.0, 400.0),
    _range(LAYER, 20.0, 100.0),
    _range(f"{LAYER}.self_attn", 21.0, 80.0),
    _range(f"{LAYER}.self_attn.q_proj", 22.0, 10.0),
    _op("aten::linear", 23.0, 8.0),
    _op("aten::mm", 24.0, 6.0),
    _launch(25.0, 11),
    _op("aten::mul", 40.0, 5.0),
    _launch(41.0, 12),
    _op("aten::cat", 50.0, 5.0),
    _launch(51.0, 13, name="cudaMemcpyAsync"),
    _op("aten::scaled_dot_product_attention", 60.0, 20.0),
    _op("aten::_flash_attention_forward", 62.0, 15.0),
    _launch(65.0, 14),
    _op("aten::add", 110.0, 5.0),
    _launch(111.0, 15),
    _range("module:lm_head", 300.0, 20.0),
    _op("aten::linear", 301.0, 10.0),
    _launch(305.0, 16),
    # Another thread with the same times must not be mixed in.
    _range("module:model.elsewhere", 0.0, 500.0, tid=2),
]


def test_kernels_find_their_modules_through_the_launch() -> None:
    found = {record.kernel: record for record in attribute(gather(EVENTS))}
    assert {
        name: (r.stage, r.module.rsplit(".", 1)[-1], r.aten, r.op, r.op_class)
        for name, r in found.items()
    } == {
        "gemm_q": ("prefill", "q_proj", "aten::linear", "q_proj", "gemm"),
        "rope_mul": ("prefill", "self_attn", "aten::mul", "rope", "pointwise"),
        "Memcpy DtoD": ("prefill", "self_attn", "aten::cat", "rope", "pointwise"),
        "flash_fwd": (
            "prefill", "self_attn", "aten::scaled_dot_product_attention", "attention",
            "attention_prefill",
        ),
        "add": ("prefill", "0", "aten::add", "attention_residual", "pointwise"),
        "gemm_head": ("prefill", "lm_head", "aten::linear", "lm_head", "gemm"),
    }  # fmt: skip
    assert found["flash_fwd"].time_s == pytest.approx(50e-6)
    # A kernel whose launch is not in the trace belongs to nobody, and nobody gets its time.
    assert "lost" not in found


def test_a_replayed_graph_is_one_launch_of_many_kernels() -> None:
    events = [
        _range("stage:prefill", 0.0, 100.0),
        _range("module:model.language_model", 1.0, 90.0),
        _launch(5.0, 3, name="cudaGraphLaunch"),
        *(_kernel(f"k{index}", 10.0 * index, 2.0, 3) for index in range(4)),
    ]
    records = attribute(gather(events))
    assert [record.kernel for record in records] == ["k0", "k1", "k2", "k3"]
    assert {record.module for record in records} == {"model.language_model"}
    assert {record.stage for record in records} == {"prefill"}


def test_a_reduction_inside_the_prefill_is_the_reductions() -> None:
    events = [
        _range("stage:prefill", 0.0, 100.0),
        _range("module:model.language_model.layers.1", 1.0, 90.0),
        _range("stage:reduction", 5.0, 20.0),
        _op("aten::topk", 6.0, 5.0),
        _launch(7.0, 1),
        _kernel("radix", 50.0, 2.0, 1),
    ]
    (record,) = attribute(gather(events))
    assert record.stage == "reduction"
    assert record.op == "reduction.topk"


def test_sixty_thousand_events_are_joined_in_seconds() -> None:
    import time

    events: list[dict[str, Any]] = [_range("stage:prefill", 0.0, 1e9)]
    for index in range(20_000):
        events += [
            _op("aten::add", 10.0 * index, 8.0),
            _launch(10.0 * index + 1, index),
            _kernel("add", 10.0 * index + 5, 1.0, index),
        ]
    started = time.perf_counter()
    assert len(attribute(gather(events))) == 20_000
    # A join that looks at every launch for every kernel would need minutes.
    assert time.perf_counter() - started < 5.0


@pytest.fixture(scope="module")
def records(tiny: Any, tiny_shape: Any, tiny_source: str) -> Any:
    from profiling.records.measurement import Configuration

    configuration = Configuration(
        tiny_source, "fp32", device="cpu", visual_tokens=5, text_tokens=7, output_tokens=2
    )
    execution = Execution(tiny, tiny_shape, configuration)
    with execution.ready():
        return trace_run(execution)


def test_a_cpu_run_is_attributed_by_its_ops(records: Any) -> None:
    table = op_table(records)
    assert table["share"].sum() == pytest.approx(1.0)
    counts = table.set_index(["stage", "name"])["kernels"]
    layers, towers = 2, 3
    for name in ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"):
        assert counts["prefill", name] == layers
        assert counts["decode", name] == 2 * layers
    assert counts["prefill", "attention"] == layers
    assert counts["prefill", "cache_cat"] == 2 * layers
    assert counts["prefill", "rope"] == 10 * layers
    assert counts["vision", "fc1"] == towers
    assert counts["vision", "patch_embed"] == 1
    assert counts["projector", "linear_1"] == counts["projector", "linear_2"] == 1
    assert counts["prefill", "lm_head"] == 1


def test_every_product_the_cost_model_names_is_measured_under_that_name(
    records: Any, tiny_source: str
) -> None:
    expected = estimate(
        tiny_source, "nvidia-a100-sxm4-80gb", visual_tokens=5, text_tokens=7, output_tokens=2,
        precision="fp32", execution="hf-eager",
    )  # fmt: skip
    measured = {(record.stage, record.op, record.op_class) for record in records}
    for row in expected.ops:
        if row.op_class in ("gemm", "conv") or row.op_class.startswith("attention"):
            assert (row.stage, row.name, row.op_class) in measured, (row.stage, row.name)


def test_a_trace_is_kept_where_it_is_asked_for(
    tiny: Any, tiny_shape: Any, configure: Any, tmp_path: Path
) -> None:
    execution = Execution(tiny, tiny_shape, configure(visual_tokens=2))
    path = tmp_path / "trace.json"
    with execution.ready():
        made = trace_run(execution, path)
        assert work_by_stage(made)["prefill"].kernels > 20
        with pytest.raises(OutputError, match="cannot write"):
            trace_run(execution, tmp_path / "no" / "such" / "folder.json")
    assert read_trace(path) == made
    packed = tmp_path / "trace.json.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_trace(packed) == made


def test_what_is_no_trace_is_refused(tmp_path: Path) -> None:
    for name, text in (("a.json", "{"), ("b.json", "[]"), ("c.json", json.dumps({"x": 1}))):
        (tmp_path / name).write_text(text)
        with pytest.raises(InvalidFileError, match="no Chrome trace"):
            read_trace(tmp_path / name)


def test_a_kernel_whose_launch_is_seen_twice_ran_once() -> None:
    """A launch inside a driver's call bears the same correlation id as the call."""
    events = [
        _kernel("gemm", 10.0, 3.0, 5), _range("stage:prefill", 0.0, 9.0),
        _launch(1.0, 5), {**_launch(1.2, 5), "cat": "cuda_driver"},
    ]  # fmt: skip
    work = work_by_stage(attribute(gather(events)))
    assert (work["prefill"].kernels, work["prefill"].busy_s) == (1, pytest.approx(3e-6))


@pytest.mark.parametrize(
    ("module", "op", "stage", "repeat", "expected"),
    [
        ("model.vision_tower.encoder.layers.3.self_attn", "aten::scaled_dot_product_attention",
         "vision", 0, ("attention", "attention_encoder")),
        ("model.language_model.layers.3.self_attn", "aten::bmm", "decode", 1,
         ("attention_values", "attention_decode")),
        ("model.language_model.norm", "aten::mul", "prefill", 0, ("final_norm", "norm")),
        ("model.vision_tower.embeddings", "aten::cat", "vision", 0, ("class_token", "copy")),
        ("model.language_model.layers.0", "aten::add", "prefill", 1, ("mlp_residual", "pointwise")),
        ("model.multi_modal_projector.act", "aten::gelu", "projector", 0, ("gelu", "pointwise")),
        ("", "aten::cat", "projector", 0, ("merge_tokens", "copy")),
    ],
)  # fmt: skip
def test_names_are_the_cost_models(
    module: str, op: str, stage: str, repeat: int, expected: tuple[str, str]
) -> None:
    assert op_of(module, op, stage, repeat=repeat) == expected


def test_an_unknown_op_has_at_least_a_class() -> None:
    assert class_of("aten::convolution") == "conv"
    assert class_of("aten::index_select") == "embedding"
    assert class_of("Memcpy DtoD (Device -> Device)") == "copy"
    assert class_of("aten::exp") == "pointwise"
