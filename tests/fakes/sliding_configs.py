"""Configs of small language models whose layers slide by every rule that a config can state."""

from __future__ import annotations

from typing import Any

import torch

from token_reduction.caches import cache_keyword, cache_of

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
    "products in one": {"model_type": "phi3", "sliding_window": 16, "pad_token_id": 0},
    "products in one, null": {"model_type": "phi3", "sliding_window": None, "pad_token_id": 0},
    "normed heads": {
        "model_type": "qwen3", "head_dim": 16, "sliding_window": 16, "use_sliding_window": True,
        "max_window_layers": 3,
    },
    "four norms": {
        "model_type": "gemma3_text", "head_dim": 16, "sliding_window": 16,
        "layer_types": [S, S, F, S, S],
    },
    "four norms, the class's pattern": {
        "model_type": "gemma3_text", "head_dim": 16, "sliding_window": 101,
    },
}  # fmt: skip


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
