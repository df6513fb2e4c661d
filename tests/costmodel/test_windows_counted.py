"""Sliding windows against `transformers` on the meta device: its cache, and torch's counter around it."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from costmodel import estimate, load_model
from profiling.counting.three_counters import count_model
from token_reduction.caches import cache_keyword, cache_of
from vlm_roofline.cli import main

H100 = "nvidia-h100-sxm5-80gb"
F, S = "full_attention", "sliding_attention"
SHAPE = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 5, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 100, "max_position_embeddings": 4096,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "every layer": {"model_type": "mistral", "sliding_window": 16},
    "the class's window": {"model_type": "mistral"},
    "null": {"model_type": "mistral", "sliding_window": None},
    "as long as the prompt": {"model_type": "mistral", "sliding_window": 100},
    "one more": {"model_type": "mistral", "sliding_window": 101},
    "one less": {"model_type": "mistral", "sliding_window": 99},
    "two tokens": {"model_type": "mistral", "sliding_window": 2},
    "one token": {"model_type": "mistral", "sliding_window": 1},
    "a switch it does not know": {
        "model_type": "mistral", "sliding_window": 16, "use_sliding_window": False,
    },
    "a llama that says so": {"model_type": "llama", "sliding_window": 16},
    "a llama's pattern": {
        "model_type": "llama", "sliding_window": 16, "layer_types": [F, S, F, S, S],
    },
    "switched off": {"model_type": "qwen2", "sliding_window": 16, "use_sliding_window": False},
    "from the third layer": {
        "model_type": "qwen2", "sliding_window": 16, "use_sliding_window": True,
        "max_window_layers": 2,
    },
    "from the first layer": {
        "model_type": "qwen2", "sliding_window": 103, "use_sliding_window": True,
        "max_window_layers": 0,
    },
    "beyond the last layer": {
        "model_type": "qwen2", "sliding_window": 16, "use_sliding_window": True,
    },
    "a pattern": {
        "model_type": "qwen2", "sliding_window": 16, "use_sliding_window": True,
        "layer_types": [S, S, F, S, S],
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_value_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Meta tensors hold no values to check."""
    monkeypatch.setenv("TRANSFORMERS_DISABLE_TORCH_CHECK", "1")


def built(document: dict[str, Any], attention: str = "sdpa", device: str = "meta") -> Any:
    import transformers

    config = transformers.AutoConfig.for_model(**document)
    with torch.device(device):
        return transformers.AutoModelForCausalLM.from_config(
            config, attn_implementation=attention, dtype=torch.bfloat16
        ).eval()


def step(model: Any, tokens: int, cache: Any = None) -> Any:
    """Run so many tokens behind a cache, which grows, and return it."""
    table = model.get_input_embeddings().weight
    embeds = torch.ones(1, tokens, table.shape[1], device=table.device, dtype=torch.bfloat16)
    with torch.no_grad():
        return cache_of(
            model(
                inputs_embeds=embeds,
                use_cache=True,
                logits_to_keep=1,
                **({} if cache is None else {cache_keyword(): cache}),
            )
        )


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
    counter = FlopCounterMode(display=False)
    with counter:
        for _ in range(6):
            cache = step(model, 1, cache)
    rotary = sum(
        sum(ops.values())
        for path, ops in counter.get_flop_counts().items()
        if path.endswith("rotary_emb")
    )
    cost = estimate(
        str(file), H100, text_tokens=100, output_tokens=6, execution="hf-eager",
        attention="flash" if attention == "sdpa" else "eager",
    )  # fmt: skip
    assert cost.stages["decode"].flops == counter.get_total_flops() - rotary
    held = tuple(layer.keys.numel() * 2 + layer.values.numel() * 2 for layer in cache.layers)
    assert cost.kv_bytes_by_layer == held
    assert cost.memory.kv_cache_bytes == sum(held)
    assert load_model(str(file)).text.parameters == sum(p.numel() for p in model.parameters())


# Of a window of one token transformers keeps the whole cache beside a mask of the new tokens alone.
@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("a llama's pattern", "one token")])
@pytest.mark.parametrize(("cached", "fresh"), [(10, 90), (60, 40), (99, 1), (120, 20)])
def test_a_prefill_behind_a_cache(tmp_path, kind, cached, fresh) -> None:
    """Sliding layers have cut what was cached, and count the new tokens against what is left."""
    document = SHAPE | KINDS[kind]
    file = tmp_path / "config.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    model = built(document)
    cache = step(model, cached)
    counter = FlopCounterMode(display=False)
    with counter:
        cache = step(model, fresh, cache)
    rotary = sum(
        sum(ops.values())
        for path, ops in counter.get_flop_counts().items()
        if path.endswith("rotary_emb")
    )
    cost = estimate(
        str(file), H100, text_tokens=cached + fresh, cached_tokens=cached, execution="hf-eager"
    )
    assert cost.stages["prefill"].flops == counter.get_total_flops() - rotary
    held = tuple(layer.keys.numel() * 2 + layer.values.numel() * 2 for layer in cache.layers)
    assert cost.kv_bytes_by_layer == held


def test_mistral_of_16k_tokens() -> None:
    """Mistral-7B-v0.1 as its config says: 536,739,840 B of cache and 16.37 GFLOP a step."""
    model = built(
        {
            "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336,
            "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
            "vocab_size": 32000, "max_position_embeddings": 32768, "sliding_window": 4096,
        }
    )  # fmt: skip
    cache = step(model, 16384)
    assert (
        sum(2 * (layer.keys.numel() + layer.values.numel()) for layer in cache.layers)
        == 536_739_840
    )
    counter = FlopCounterMode(display=False)
    with counter:
        step(model, 1, cache)
    rotary = sum(
        sum(ops.values())
        for path, ops in counter.get_flop_counts().items()
        if path.endswith("rotary_emb")
    )
    assert counter.get_total_flops() - rotary == 16_368_271_360


class Kernels(TorchDispatchMode):
    """Count the ops that compute or copy, not those that look at a tensor another way."""

    views = (
        "unsqueeze",
        "expand",
        "view",
        "scalar_tensor",
        "transpose",
        "slice",
        "permute",
        "detach",
    )

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, _types, args=(), kwargs=None):
        name = func.__name__.partition(".")[0]
        if not any(view in name for view in self.views):
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def test_kernels_that_a_full_window_adds(tmp_path) -> None:
    """12 for the mask; in each of five layers one that adds it, and two that repeat keys and values."""
    document = SHAPE | {"model_type": "mistral"}
    counted, predicted = [], []
    for window in (16, 101):
        model = built(document | {"sliding_window": window}, device="cpu")
        with Kernels() as prefill:
            cache = step(model, 100)
        with Kernels() as decode:
            step(model, 1, cache)
        counted.append((sum(prefill.counts.values()), sum(decode.counts.values())))
        file = tmp_path / f"{window}.json"
        file.write_text(json.dumps(document | {"sliding_window": window}), encoding="utf-8")
        stages = estimate(
            str(file), H100, text_tokens=100, output_tokens=1, execution="hf-eager"
        ).stages  # fmt: skip
        predicted.append((stages["prefill"].kernels, stages["decode"].kernels))
    assert predicted[0][0] - predicted[1][0] == counted[0][0] - counted[1][0] == 12 + 5 * 3
    # The second window is full at the 101st token too.
    assert predicted[0][1] == predicted[1][1]
    assert counted[0][1] == counted[1][1]


def test_a_cut_cache_keeps_the_storage_of_the_prompt() -> None:
    """Until the next token, which is concatenated to the cut."""
    model = built(SHAPE | {"model_type": "mistral", "sliding_window": 16}, device="cpu")
    cache = step(model, 100)
    keys = cache.layers[0].keys
    assert keys.shape[-2] == 15
    assert keys.untyped_storage().nbytes() == 100 * 2 * 16 * 2
    assert step(model, 1, cache).layers[0].keys.untyped_storage().nbytes() == 16 * 2 * 16 * 2
