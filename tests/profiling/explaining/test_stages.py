"""Stages and layers of traces: as our own ranges name them, and as a trace without any range shows them."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest
from tiny_models import LLAVA

from profiling import explain
from profiling.explaining.calls import attention_of
from profiling.measuring.kernel_pass import run_kernel_passes
from profiling.records.measurement import TOTAL, Configuration
from profiling.tracing.events import Event
from profiling.tracing.op_profile import read_op_profile

if TYPE_CHECKING:
    from pathlib import Path

    from fake_cuda import FakeCuda

    from profiling.explaining import Explanation

METHODS: dict[str, dict[str, Any]] = {
    "none": {},
    "eager": {"attention": "eager"},
    "behind the projector": {"method": "divprune", "keep": 4},
    "before the projector": {"method": "prumerge", "keep": 8},
}


def _traced(folder: Path, **settings: Any) -> Path:
    runs = folder / "runs"
    list(run_kernel_passes([Configuration(**settings)], runs, traces=True))
    (trace,) = runs.glob("*_trace.json.gz")
    return trace


def _bare(trace: Path) -> Explanation:
    """The trace as somebody else's profiler would have written it: without our ranges."""
    document = json.loads(gzip.decompress(trace.read_bytes()))
    events = [each for each in document["traceEvents"] if each.get("cat") != "user_annotation"]
    path = trace.with_name("bare.json")
    path.write_text(json.dumps(document | {"traceEvents": events}))
    return explain(path)


@pytest.mark.parametrize("case", ["none", "eager", "behind the projector"])
def test_a_gpus_trace_has_the_stages_of_its_op_profile(
    case: str, gpu: FakeCuda, tiny_source: str, tmp_path: Path
) -> None:
    trace = _traced(
        tmp_path, model=tiny_source, dtype="fp32", text_tokens=7, output_tokens=2, **METHODS[case]
    )
    found = explain(trace)
    profile = read_op_profile(trace.with_name(trace.name.replace("_trace.json.gz", "_ops.json")))
    stages: dict[str, float] = {}
    for row in profile.rows:
        stages[row.stage] = stages.get(row.stage, 0.0) + row.time_s
    assert set(found.stages) == set(stages)
    for stage, time_s in stages.items():
        assert found.stages[stage] == pytest.approx(time_s, rel=0.01), stage
    assert found.attributed_time_s + found.copies_time_s >= 0.95 * found.kernel_time_s
    assert gpu.launches > 0


@pytest.mark.parametrize("case", METHODS)
def test_stages_are_found_without_ranges(case: str, tmp_path: Path) -> None:
    document = json.loads(json.dumps(LLAVA)) | {"image_seq_length": 64}
    document["vision_config"]["image_size"] = 14 * 8
    # Ids are told from positions by the size of their table.
    document["text_config"] |= {"num_hidden_layers": 4, "vocab_size": 9000}
    (tmp_path / "config.json").write_text(json.dumps(document))
    trace = _traced(
        tmp_path, model=str(tmp_path), dtype="fp32", device="cpu", text_tokens=7, output_tokens=3,
        **METHODS[case],
    )  # fmt: skip
    own, bare = explain(trace), _bare(trace)
    # What our ranges leave outside of every stage belongs to one of them.
    assert set(bare.stages) == set(own.stages) - {TOTAL}
    places = [place for place in zip(own._placed, bare._placed, strict=True) if place[0] != TOTAL]
    moved = sum(ours != theirs for ours, theirs in places)
    assert moved <= 0.04 * len(places)
    assert bare.kernel_time_s == pytest.approx(own.kernel_time_s)
    assert [(layer["of"], layer["width"]) for layer in bare.layers] == [(3, 32), (4, 64), (4, 64)]
    assert bare.layers == own.layers


def test_llava_is_recognised_by_its_sizes(gpu_of_shapes: FakeCuda, tmp_path: Path) -> None:
    """LLaVA-1.5-7B at full size, as tensors without values, and no range in its trace."""
    trace = _traced(tmp_path, model="llava-1.5-7b", dtype="bf16", text_tokens=40)
    found = _bare(trace)
    tower, prefill = found.layers
    assert tower["says"] == "24 layers of 1024, 577 tokens: CLIP-L/336"
    assert "32 layers of 4096, 616 tokens: the language model of" in prefill["says"]
    assert "llava-1.5-7b" in prefill["says"]
    assert list(found.stages) == ["vision", "projector", "prefill"]
    assert found.attributed_time_s + found.copies_time_s >= 0.95 * found.kernel_time_s
    assert gpu_of_shapes.launches > 0


@pytest.mark.parametrize(("causal", "gqa"), [("True", "False"), ("False", "True")])
def test_grouped_heads_are_no_causal_mask(causal: str, gqa: str) -> None:
    sizes = ((1, 8, 64, 64), (1, 2, 64, 64), (1, 2, 64, 64), (), (), (), (), ())
    op = Event(
        "op", "aten::scaled_dot_product_attention", 0.0, 1.0,
        sizes=sizes, values=("", "", "", "", "0.", causal, "", gqa),
    )  # fmt: skip
    found = attention_of([op])
    assert found is not None
    assert found.causal == (causal == "True")
