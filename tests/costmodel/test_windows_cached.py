"""Sliding windows against `transformers`: prompts behind a cache, kernels, and what a cut cache holds."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from counted_flops import counted
from sliding_configs import KINDS, SHAPE, built, step
from torch.utils._python_dispatch import TorchDispatchMode

from costmodel import estimate

pytestmark = pytest.mark.usefixtures("meta_tensors")
H100 = "nvidia-h100-sxm5-80gb"


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
    flops, cache = counted(lambda: step(model, fresh, cache))
    cost = estimate(
        str(file), H100, text_tokens=cached + fresh, cached_tokens=cached, execution="hf-eager"
    )
    assert cost.stages["prefill"].flops == flops
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
    assert counted(lambda: step(model, 1, cache))[0] == 16_368_271_360


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
