"""Sliding windows against `transformers`: counts to the first tokens, and the cache behind them."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from counted_flops import counted
from sliding_configs import KINDS, SHAPE, F, S, built, step

from costmodel import estimate, load_model
from profiling.counting.three_counters import count_model
from vlm_roofline.cli import main

pytestmark = pytest.mark.usefixtures("meta_tensors")
H100 = "nvidia-h100-sxm5-80gb"


@pytest.mark.parametrize("kind", KINDS)
def test_counters_agree(tmp_path, kind) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(SHAPE | KINDS[kind]), encoding="utf-8")
    report = count_model(str(file), text_tokens=100, fvcore=False)
    assert report.agrees, [row for row in report.rows if row.note]


def a_random_config(seed: int) -> dict[str, Any]:
    """Return a small decoder whose layers slide by one of the rules that a config can state."""
    draw = random.Random(seed)
    layers, kv_heads = draw.randint(2, 6), draw.choice((1, 2, 4))
    window = draw.randint(2, 140)
    rule = ("all", "from", "pattern", "off", "from", "pattern")[seed]
    kind = {"all": "mistral", "from": "qwen2", "pattern": "qwen2", "off": "qwen2"}[rule]
    document: dict[str, Any] = {
        "model_type": kind, "hidden_size": 32 * kv_heads * draw.randint(1, 3),
        "intermediate_size": 16 * draw.randint(2, 9), "num_hidden_layers": layers,
        "num_attention_heads": kv_heads * draw.choice((1, 2)), "num_key_value_heads": kv_heads,
        "vocab_size": draw.randint(50, 400), "max_position_embeddings": 4096,
        "sliding_window": window,
    }  # fmt: skip
    if kind == "qwen2":
        document["use_sliding_window"] = rule != "off"
    if rule == "from":
        document["max_window_layers"] = draw.randint(0, layers)
    if rule == "pattern":
        document["layer_types"] = [draw.choice((F, S)) for _ in range(layers)]
    return document


@pytest.mark.parametrize("seed", range(6))
def test_count_says_equal_on_random_configs(tmp_path, capsys, seed) -> None:
    """Six of them: every layer, from one on, patterns and none; one is quantised and counted as it is not."""
    document = a_random_config(seed)
    if seed == 5:
        document["quantization_config"] = {"quant_method": "awq", "bits": 4, "group_size": 32}
    (tmp_path / "config.json").write_text(json.dumps(document), encoding="utf-8")
    tokens = str(random.Random(seed).randint(90, 160))
    assert main(["count", str(tmp_path), "--text-tokens", tokens, "--no-fvcore"]) == 0
    assert "cost model and torch agree to the unit" in capsys.readouterr().out


# transformers makes one mask for all of Llama's layers, which in a pattern fits the full ones only;
# SDPA needs none to decode.
@pytest.mark.parametrize(
    ("kind", "attention"),
    [(kind, "sdpa") for kind in KINDS]
    + [(kind, "eager") for kind in KINDS if kind != "a llama's pattern"],
)
def test_six_steps_and_the_cache_behind_them(tmp_path, kind, attention) -> None:
    """From 100 tokens on, one by one: windows of 16, 99, 100, 101 and 103 fill before and amid."""
    document = SHAPE | KINDS[kind]
    file = tmp_path / "config.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    model = built(document, attention)
    cache = step(model, 100)
    flops = 0
    for _ in range(6):
        more, cache = counted(lambda: step(model, 1, cache))  # noqa: B023
        flops += more
    cost = estimate(
        str(file), H100, text_tokens=100, output_tokens=6, execution="hf-eager",
        attention="flash" if attention == "sdpa" else "eager",
    )  # fmt: skip
    assert cost.stages["decode"].flops == flops
    held = tuple(layer.keys.numel() * 2 + layer.values.numel() * 2 for layer in cache.layers)
    assert cost.kv_bytes_by_layer == held
    assert cost.memory.kv_cache_bytes == sum(held)
    assert load_model(str(file)).text.parameters == sum(p.numel() for p in model.parameters())
