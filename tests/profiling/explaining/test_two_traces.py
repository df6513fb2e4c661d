"""Before and after a method, on the CPU: the parts add up, and the sentence names the largest reason."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tiny_models import LLAVA

from profiling import explain
from profiling.measuring.kernel_pass import run_kernel_passes
from profiling.records.measurement import Configuration
from profiling.tracing.op_profile import read_op_profile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from profiling.explaining.comparison import Comparison

#: Patches on a side: 24 as in CLIP-L/336, and 4, where nothing but the host costs anything.
MANY, FEW = 24, 4


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Run a small LLaVA once under the profiler; return the trace, with its op profile beside it."""

    def run(side: int, **settings: Any) -> Path:
        folder = tmp_path_factory.mktemp("model")
        document = json.loads(json.dumps(LLAVA)) | {"image_seq_length": side**2}
        document["text_config"]["num_hidden_layers"] = 4
        document["text_config"]["max_position_embeddings"] = 2048
        document["vision_config"]["image_size"] = 14 * side
        (folder / "config.json").write_text(json.dumps(document))
        configuration = Configuration(str(folder), "fp32", device="cpu", text_tokens=7, **settings)
        list(run_kernel_passes([configuration], folder / "runs", traces=True))
        (trace,) = (folder / "runs").glob("*_trace.json.gz")
        return trace

    return run


def _adds_up(both: Comparison) -> None:
    lost = math.fsum(part.lost_s for part in both.parts)
    # Times are rounded to a nanosecond in every event: a thousandth of the whole, as below.
    assert lost == pytest.approx(both.time_after_s - both.expected_s, abs=1e-3 * both.time_after_s)
    for name in ("before", "after"):
        parts = math.fsum(getattr(part, f"{name}_s") for part in both.parts)
        assert parts == pytest.approx(getattr(both, f"time_{name}_s"), rel=1e-3)


def test_a_method_that_needs_scores_loses_fused_attention(traced: Callable[..., Path]) -> None:
    plain = traced(MANY)
    eager = traced(MANY, method="fastv(layer=2)", keep=8, attention="eager")
    both = explain(plain, eager).comparison
    assert both is not None
    _adds_up(both)
    # Four layers and the three of the tower write their scores.
    assert both.fused_lost == 4 + 3
    assert both.tokens_before == MANY**2 + 7
    assert both.tokens_after == pytest.approx((2 * (MANY**2 + 7) + 2 * (8 + 7)) / 4)
    assert "fused attention was lost" in both.sentence
    assert both.to_dict()["fused_attention_lost_layers"] == 7


def test_a_method_that_computes_all_scores_itself_is_told_so(traced: Callable[..., Path]) -> None:
    settings = {"method": "fastv(layer=2,variant=paper)", "keep": 8}
    both = explain(traced(MANY), traced(MANY, **settings)).comparison
    assert both is not None
    _adds_up(both)
    assert (both.fused_lost, both.written_beside) == (0, 1)
    assert "scores of 1 layer out beside fused attention" in both.sentence


@pytest.mark.parametrize("side", [FEW, MANY])
def test_few_tokens_and_many_launches_are_the_hosts(side: int, traced: Callable[..., Path]) -> None:
    found = explain(traced(side), traced(side, method="divprune", keep=4))
    both = found.comparison
    assert both is not None
    _adds_up(both)
    assert both.tokens_after == 4 + 7
    assert both.launches_after > both.launches_before
    assert "the host" in both.sentence
    assert found.sentence == both.sentence


def test_the_same_trace_twice_has_no_reason(traced: Callable[..., Path]) -> None:
    trace = traced(FEW)
    both = explain(trace, trace).comparison
    assert both is not None
    assert both.sentence.startswith("Tokens did not fall (23 and 23 a layer)")
    assert all(part.lost_s == pytest.approx(0) for part in both.parts)


def test_our_own_traces_have_the_stages_of_their_op_profile(traced: Callable[..., Path]) -> None:
    trace = traced(FEW, method="divprune", keep=4, output_tokens=2)
    found = explain(trace)
    profile = read_op_profile(trace.with_name(trace.name.replace("_trace.json.gz", "_ops.json")))
    stages: dict[str, float] = {}
    for row in profile.rows:
        stages[row.stage] = stages.get(row.stage, 0.0) + row.time_s
    assert set(found.stages) == set(stages)
    for stage, time_s in stages.items():
        assert found.stages[stage] == pytest.approx(time_s, rel=0.01), stage
    assert [(layer["of"], layer["width"], layer["tokens"]) for layer in found.layers] == [
        (3, 32, FEW**2 + 1), (4, 64, 4 + 7), (4, 64, 1),
    ]  # fmt: skip
    assert found.attributed_time_s >= 0.95 * found.kernel_time_s


def test_a_trace_without_sizes_still_tells_that_fused_attention_was_lost(tmp_path: Path) -> None:
    """Somebody else's profiler, without `record_shapes`, and modules that no range names."""
    paths = []
    for fused in (True, False):
        q = torch.ones(1, 4, 256, 16)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            for _ in range(3):
                hidden = q.transpose(1, 2).flatten(2) @ torch.ones(64, 64)
                if fused:
                    torch.nn.functional.scaled_dot_product_attention(q, q, q)
                else:
                    torch.softmax(q @ q.transpose(-1, -2), -1) @ q
                hidden @ torch.ones(64, 64)
        paths.append(tmp_path / f"{fused}.json")
        profiler.export_chrome_trace(str(paths[-1]))
    both = explain(*paths).comparison
    assert both is not None
    assert both.fused_lost == 3
    assert both.sentence.startswith("Tokens are not known, since no sizes were recorded")
    assert "fused attention was lost" in both.sentence
