"""Sliding windows: KV cache, decode, prefill, memory, by hand and as sums over single steps."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from costmodel import estimate, sweep
from costmodel.models import config_dict
from costmodel.models.decoders.gated import Kind, gated_layer
from costmodel.ops.attention import attended_pairs
from costmodel.windows import cached_tokens, decode_parts

H100 = "nvidia-h100-sxm5-80gb"
PLANS = ("fused", "hf-eager", "cuda-graph")
F, S = "full_attention", "sliding_attention"
#: Mistral-7B-v0.1: 32 layers of 8 KV heads of 128.
MISTRAL = {
    "model_type": "mistral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "max_position_embeddings": 32768,
    "sliding_window": 4096,
}
TINY = {
    "model_type": "qwen2",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "use_sliding_window": True,
    "sliding_window": 16,
    "max_position_embeddings": 4096,
}


@pytest.fixture
def written(tmp_path):
    """Write a config and return its path."""

    def write(document: dict[str, Any], name: str = "config") -> str:
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(document), encoding="utf-8")
        return str(file)

    return write


@pytest.mark.parametrize("execution", PLANS)
@pytest.mark.parametrize(
    ("text", "kv_bytes", "first_step_flops"),
    [
        (16384, 2 * 32 * 8 * 128 * 4095 * 2, 16_368_271_360),  # 536,739,840 B
        (4095, 2 * 32 * 8 * 128 * 4095 * 2, 16_368_271_360),  # the first token fills the window
        (3000, 401_604_608, None),
    ],
)
def test_mistral(written, execution, text, kv_bytes, first_step_flops) -> None:
    model = written(MISTRAL)
    cost = estimate(model, H100, text_tokens=text, output_tokens=64, execution=execution)
    assert cost.memory.kv_cache_bytes == kv_bytes == sum(cost.kv_bytes_by_layer)
    assert cost.warnings == ()
    if first_step_flops is None:
        full = written(MISTRAL | {"sliding_window": None}, "full")
        same = estimate(full, H100, text_tokens=text, output_tokens=64, execution=execution)
        assert cost.stages == same.stages
        assert cost.memory == same.memory
        assert cost.ops == same.ops
    else:
        assert cost.stages["decode"].flops == 64 * first_step_flops


SUMS = (
    "flops",
    "executed_flops",
    "weight_bytes",
    "kv_read_bytes",
    "kv_write_bytes",
    "activation_read_bytes",
    "activation_write_bytes",
    "kernels",
)


@pytest.mark.parametrize("execution", PLANS)
@pytest.mark.parametrize("attention", ["flash", "eager"])
@pytest.mark.parametrize(
    "kinds",
    [[S] * 4, [F, S, S, F], [F, F, F, S], [F] * 4],
    ids=lambda kinds: "".join(k[0] for k in kinds),
)
def test_steps_one_by_one_add_up(written, execution, attention, kinds) -> None:
    """The window of 16 fills before, at the first of, amid, at the last of, and after the steps."""
    model = written(TINY | {"layer_types": kinds})
    fixed: dict[str, Any] = {"execution": execution, "attention": attention, "batch_size": 3}
    for text in (3, 8, 9, 10, 13, 14, 15, 16, 17, 40):
        whole = estimate(model, H100, text_tokens=text, output_tokens=7, **fixed)
        steps = [
            estimate(model, H100, text_tokens=text + i, output_tokens=1, **fixed).stages["decode"]
            for i in range(7)
        ]
        for name in SUMS:
            assert getattr(whole.stages["decode"], name) == sum(getattr(s, name) for s in steps), (
                name
            )
        last = estimate(model, H100, text_tokens=text + 6, output_tokens=1, **fixed)
        assert whole.memory.kv_cache_bytes == last.memory.kv_cache_bytes
        assert whole.kv_bytes_by_layer == last.kv_bytes_by_layer
        assert len({row.name for row in whole.ops if row.stage == "decode"}) == sum(
            row.stage == "decode" for row in whole.ops
        )


@pytest.mark.parametrize("execution", PLANS)
def test_rows_of_a_sweep_are_single_estimates(written, execution) -> None:
    model = written(TINY | {"layer_types": [F, S, S, F]})
    lengths, outputs, batches = [3, 12, 15, 16, 17, 50], [0, 1, 5, 60], [1, 2]
    table = sweep(
        model,
        H100,
        text_tokens=lengths,
        output_tokens=outputs,
        batch_size=batches,
        execution=execution,
        stage_columns=True,
    )
    assert len(table) == len(lengths) * len(outputs) * len(batches)
    for row in table.itertuples():
        one = estimate(
            model,
            H100,
            text_tokens=row.text_tokens,
            output_tokens=row.output_tokens,
            batch_size=row.batch_size,
            execution=execution,
        )
        for name in (*SUMS, "time_s"):
            for stage in ("prefill", "decode"):
                expected = getattr(one.stages[stage], name)
                assert getattr(row, f"{stage}_{name}") == pytest.approx(expected, rel=1e-12), name
        assert row.kv_cache_bytes == one.memory.kv_cache_bytes
        assert row.peak_memory_bytes == one.memory.peak_memory_bytes


@pytest.mark.parametrize("execution", PLANS)
def test_a_dense_prefill_counts_what_full_attention_counts(written, execution) -> None:
    sliding, full = written(TINY | {"layer_types": [S] * 4}), written(TINY, "full")
    first, second = (
        estimate(m, H100, text_tokens=100, execution=execution).stages["prefill"]
        for m in (sliding, full)
    )
    assert first.flops == second.flops
    head_dim, heads, layers, softmax = 16, 4, 4, 5
    per_pair = (4 * head_dim + softmax) * heads * layers
    triangle = 100 * 101 // 2
    inside = 16 * 17 // 2 + 84 * 16
    if execution == "fused":  # the kernel skips what is outside
        assert first.executed_flops == second.executed_flops - per_pair * (triangle - inside)
    else:  # a mask of four operations a pair: the square, and keys repeated in every layer
        mask = 4 * 100 * 100
        assert first.executed_flops == second.executed_flops + per_pair * (10_000 - triangle) + mask
        assert first.kernels == second.kernels + 12 + 3 * layers


@pytest.mark.parametrize(
    ("s", "t", "window"), [(1, 1, 1), (5, 5, 2), (9, 9, 9), (9, 9, 12), (3, 20, 7), (4, 8, 6)]
)
def test_pairs_one_by_one(s, t, window) -> None:
    assert attended_pairs(s, t, True, window) == sum(
        min(i, window) for i in range(t - s + 1, t + 1)
    )
    arrays = np.array([s]), np.array([t])
    assert attended_pairs(*arrays, True, window).tolist() == [attended_pairs(s, t, True, window)]


def test_keys_of_steps_one_by_one() -> None:
    for window in (0, 2, 5, 9):
        for first in range(1, 12):
            for steps in range(1, 9):
                parts = decode_parts(first + (steps - 1) / 2, steps, window)
                keys = [min(first + i, window or 99) for i in range(steps)]
                assert sum(count for _, count in parts) == steps
                assert sum(mean * count for mean, count in parts) == sum(keys)
                mean = np.array([first + (steps - 1) / 2])
                rows = decode_parts(mean, np.array([steps]), window)
                assert sum((m * n) for m, n in rows) == sum(keys)
            assert cached_tokens(first, window) == (first if not window else min(first, window - 1))


@pytest.fixture
def multimodal(written) -> str:
    document = config_dict("llava-next-mistral-7b")
    document["text_config"]["sliding_window"] = 512
    return written(document, "llava")


@pytest.mark.parametrize("execution", PLANS)
def test_dropped_tokens_meet_each_layers_window(multimodal, execution) -> None:
    """A schedule of 1000, 600 and 100 visual tokens with 40 of text, then 9 decoded ones."""
    schedule = [1000] * 2 + [600] * 10 + [100] * 20
    fixed: dict[str, Any] = {"visual_tokens": 1000, "text_tokens": 40, "execution": execution}
    cost = estimate(multimodal, H100, tokens_per_layer=schedule, output_tokens=9, **fixed)
    each = 2 * 8 * 128 * 2
    assert cost.kv_bytes_by_layer == (each * 511,) * 12 + (each * 149,) * 20
    kept = [phase.kv_cache_bytes for phase in cost.memory.timeline if "prefill" in phase.name]
    assert kept == [each * 511 * 2, each * 511 * 12, each * (511 * 12 + 140 * 20)]
    attention = sum(
        row.flops
        for row in cost.ops
        if row.stage == "decode" and row.op_class == "attention_decode"
    )
    keys = 12 * 9 * 512 + 20 * sum(range(141, 150))
    assert attention == 4 * 32 * 128 * keys


def test_fastv_meets_the_window(multimodal) -> None:
    cost = estimate(
        multimodal,
        H100,
        visual_tokens=1152,
        text_tokens=40,
        output_tokens=4,
        method="fastv",
        keep=288,
        layer=2,
    )
    each = 2 * 8 * 128 * 2
    assert cost.kv_bytes_by_layer == (each * 511,) * 2 + (each * 332,) * 30


def test_a_cut_is_a_view_under_pytorch(written) -> None:
    """The whole prompt's keys stay until the next token, beside the cache: 16,384 of 4,095."""
    model = written(MISTRAL)
    uncut = 2 * 32 * 8 * 128 * 2 * (16384 - 4095)
    logits = {
        window: next(
            phase.activation_bytes
            for phase in estimate(
                written(MISTRAL | {"sliding_window": window}, str(window)),
                H100,
                text_tokens=16384,
                execution="hf-eager",
            ).memory.timeline
            if phase.name == "logits"
        )
        for window in (4096, None)
    }
    assert logits[4096] == logits[None] + uncut
    fused = estimate(model, H100, text_tokens=16384)
    full = estimate(written(MISTRAL | {"sliding_window": None}, "full"), H100, text_tokens=16384)
    assert fused.memory.timeline[-2].activation_bytes == full.memory.timeline[-2].activation_bytes


def test_what_an_estimate_rests_on_names_the_rule(written) -> None:
    model = written(TINY | {"max_window_layers": 3})
    fused, eager = (
        estimate(model, H100, execution=plan).assumptions["sliding_window"]
        for plan in ("fused", "hf-eager")
    )
    assert "1 of 4 layers see 16 tokens" in fused
    assert "serving engines" in fused
    assert "full square" in eager
    assert "sliding_window" not in estimate("llama-2-7b", H100).assumptions


def test_a_layer_of_any_kind_has_equal_parameters(written) -> None:
    from costmodel import load_model

    text = load_model(written(TINY | {"layer_types": [F, S, S, F]})).text
    assert text.stack.kinds == (gated_layer(text), gated_layer(text, Kind(16)))
    assert text.parameters == load_model(written(TINY, "full")).text.parameters
