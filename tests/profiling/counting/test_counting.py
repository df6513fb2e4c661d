"""FLOPs of real runs against the cost model, and against sums done by hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from costmodel import estimate
from costmodel.models import config_dict
from profiling.counting.one_run import attention_flops, count_run, flop_counter
from profiling.counting.three_counters import by_kind, count_model
from profiling.records.measurement import TOTAL
from profiling.subject.execution import Execution

if TYPE_CHECKING:
    from pathlib import Path

DEVICE = "nvidia-a100-sxm4-80gb"


@pytest.mark.parametrize("visual", [0, 1, 5, 16, 20])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_real_run_counts_what_the_cost_model_says(
    tiny: Any, tiny_shape: Any, tiny_source: str, configure: Any, visual: int, batch: int
) -> None:
    execution = Execution(
        tiny, tiny_shape, configure(visual_tokens=visual, batch_size=batch, output_tokens=2)
    )
    with execution.ready():
        counts, _ = count_run(execution)
    expected = estimate(
        tiny_source, DEVICE, visual_tokens=visual, text_tokens=7, batch_size=batch,
        output_tokens=2, precision="fp32",
    )  # fmt: skip
    for stage in ("vision", "projector"):
        counted = counts[stage].flops if stage in counts else 0
        assert counted == expected.stages[stage].flops, stage
    assert counts["prefill"].flops == expected.stages["prefill"].flops
    assert counts["decode"].flops == expected.stages["decode"].flops
    assert counts[TOTAL].flops == sum(
        expected.stages[stage].flops for stage in ("vision", "projector", "prefill")
    )


def test_attention_is_counted_over_the_full_square_whatever_the_grouping() -> None:
    # b=1, h=4, s=3, t=5, e=8: two products of 2 * 4 * 3 * 5 * 8 = 960.
    assert attention_flops([1, 4, 3, 8], [1, 2, 5, 8], [1, 2, 5, 8]) == 1920
    query, key = torch.randn(1, 4, 3, 8), torch.randn(1, 2, 5, 8)
    with flop_counter() as counter:
        torch.nn.functional.scaled_dot_product_attention(query, key, key, enable_gqa=True)
    assert counter.get_total_flops() == 1920


def test_quantised_weights_get_no_count(tiny_source: str, tiny_shape: Any, configure: Any) -> None:
    pytest.importorskip("torchao")
    from profiling.subject.models import build_model

    model = build_model(tiny_source, dtype="w8a16", device="cpu")
    execution = Execution(model, tiny_shape, configure(dtype="w8a16", visual_tokens=4))
    with execution.ready():
        counts, _ = count_run(execution)
    assert counts["prefill"].flops is None
    assert counts["prefill"].ops > 0


def test_three_counters_agree_or_say_why(tiny_source: str) -> None:
    report = count_model(tiny_source, visual_tokens=16, text_tokens=7, batch_size=2)
    assert report.agrees
    assert report.fvcore_missing is None
    cells = {(row.stage, row.op): row for row in report.rows}
    # Projector by hand: 32 tokens through 32 -> 64 -> 64.
    assert cells["projector", "linear"].fvcore_flops == 2 * 32 * (32 * 64 + 64 * 64)
    # fvcore leaves out one CLIP layer of three: its attention is a third less.
    attention = cells["vision", "attention"]
    assert attention.fvcore_flops == attention.cost_model_flops * 2 // 3
    assert "nobody reads" in attention.note
    assert cells["vision", "norm"].cost_model_flops == 0
    assert all("unexplained" not in row.note for row in report.rows)


@pytest.mark.parametrize(
    "quantised",
    [
        {"quant_method": "awq", "bits": 4, "group_size": 32},
        {"quant_method": "gptq", "bits": 4, "group_size": 32},
        {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        {"quant_method": "fp8", "weight_block_size": [128, 128]},
        {"quant_method": "a scheme nobody knows"},
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_a_quantised_checkpoint_counts_as_the_unquantised_model(
    tiny_source: str, tmp_path: Path, quantised: dict[str, Any], inside: bool
) -> None:
    document = config_dict(tiny_source)
    (document["text_config"] if inside else document)["quantization_config"] = quantised
    (tmp_path / "config.json").write_text(json.dumps(document), encoding="utf-8")
    report = count_model(str(tmp_path), visual_tokens=16, text_tokens=7, fvcore=False)
    assert report.agrees
    plain = count_model(tiny_source, visual_tokens=16, text_tokens=7, fvcore=False)
    assert report.total("torch") == plain.total("torch")


def test_counting_without_fvcore_says_so(tiny_source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "fvcore.nn", None)
    report = count_model(tiny_source, visual_tokens=16)
    assert report.fvcore_missing is not None
    assert "vlm-roofline[profile]" in report.fvcore_missing
    assert report.total("fvcore") is None
    assert report.total("torch") == report.total("cost_model")


def test_a_real_shape_is_counted_without_weights() -> None:
    report = count_model("llava-1.5-7b", fvcore=False)
    # The published decomposition of LLaVA-1.5-7B at 576 + 40 tokens.
    assert report.total("cost_model") == 8_583_722_926_080
    assert report.agrees


def test_products_are_sorted_by_their_modules() -> None:
    table = {
        "Global": {"aten.mm": 100, "aten.bmm": 36, "aten.convolution": 7},
        "M.layers.0.self_attn": {"aten.bmm": 30},
        "M.layers.0.self_attn.o_proj": {"aten.bmm": 10},
        "M.rotary_emb": {"aten.bmm": 2},
    }
    # 36 batched: 20 attention, 2 rotary, 10 a projection, 4 elsewhere (a head on a slice).
    assert by_kind(table) == {"linear": 114, "attention": 20, "conv": 7, "rotary": 2}
