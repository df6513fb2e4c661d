"""Tiny random models of the families that merge patches: 12 tokens of 6 x 8 patches, or 16 of a tile."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from pathlib import Path

_TEXT = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 8, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 128, "max_position_embeddings": 512,
}  # fmt: skip
_NATIVE = {
    "depth": 3, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64,
    "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2,
}  # fmt: skip
_IDS = {"image_token_id": 120, "video_token_id": 121, "vision_start_token_id": 122}
_ROPE = {"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 10000.0}
_SIGLIP = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 32, "patch_size": 4,
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen2_vl": {
        **_IDS,
        "text_config": {**_TEXT, "rope_parameters": _ROPE},
        "vision_config": {
            "depth": 2, "embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2, "num_heads": 2,
            "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2,
        },
    },
    "qwen2_5_vl": {
        **_IDS,
        "text_config": {**_TEXT, "rope_parameters": _ROPE},
        "vision_config": {**_NATIVE, "window_size": 16, "fullatt_block_indexes": [2]},
    },
    "qwen3_vl": {
        **_IDS,
        "text_config": {**_TEXT, "rope_parameters": {**_ROPE, "mrope_interleaved": True}},
        "vision_config": {
            **_NATIVE, "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1, 2],
        },
    },
    "qwen3_vl_moe": {
        **_IDS,
        "text_config": {
            **_TEXT, "rope_parameters": {**_ROPE, "mrope_interleaved": True}, "num_experts": 8,
            "num_experts_per_tok": 2, "moe_intermediate_size": 32,
        },
        "vision_config": {
            **_NATIVE, "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1, 2],
        },
    },
    "internvl": {
        "image_token_id": 120,
        "text_config": {**_TEXT, "model_type": "qwen2"},
        "vision_config": {
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": [32, 32], "patch_size": [4, 4],
        },
    },
    "gemma3": {
        "image_token_id": 120, "boi_token_index": 122, "eoi_token_index": 123,
        "mm_tokens_per_image": 16,
        "text_config": {**_TEXT, "model_type": "gemma3_text", "sliding_window": 16},
        "vision_config": {**_SIGLIP, "vision_use_head": False},
    },
    "smolvlm": {
        "image_token_id": 120, "scale_factor": 2,
        "text_config": {**_TEXT, "model_type": "llama", "pad_token_id": 0},
        "vision_config": _SIGLIP,
    },
    "idefics3": {
        "image_token_id": 120, "scale_factor": 2,
        "text_config": {**_TEXT, "model_type": "llama", "pad_token_id": 0},
        "vision_config": _SIGLIP,
    },
}  # fmt: skip
#: Families whose positions have three axes: 6 x 8 patches make 12 tokens; 8 x 8 of a tile make 16.
AXES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
TOKENS = {kind: 12 if kind in AXES else 16 for kind in CONFIGS}
#: Image sizes that make a grid of its own where the family has one: 24 x 40 pixels are 3 x 5 tokens.
INPUTS: dict[str, dict[str, Any]] = {
    "image": {"image_size": (24, 40)},
    "clip": {"image_size": (24, 40), "frames": 4},
    "frames": {"frames": 3},
}
#: Family and input: every kind of image, and of clip, once.
CASES = [
    *((kind, "image") for kind in CONFIGS),
    *((kind, "clip") for kind in AXES),
    *((kind, "frames") for kind in ("internvl", "smolvlm")),
]


def write_config(kind: str, folder: Path, layers: int = 0, depth: int = 0) -> str:
    """Write the config of a family's tiny model into a folder and return its path.

    Args:
        kind: the family.
        folder: where.
        layers: of the language model; 0 for its own.
        depth: layers of the tower; likewise.
    """
    import transformers

    document = copy.deepcopy(CONFIGS[kind])
    text, vision = document["text_config"], document["vision_config"]
    text["num_hidden_layers"] = layers or text["num_hidden_layers"]
    name = "depth" if "depth" in vision else "num_hidden_layers"
    vision[name] = depth or vision[name]
    config = transformers.AutoConfig.for_model(kind, **document)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    return str(folder)


def tiny_model(kind: str) -> Any:
    import transformers

    config = transformers.AutoConfig.for_model(kind, **CONFIGS[kind])
    torch.manual_seed(0)
    model = transformers.AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.2)
    return model.eval()


def tiny_inputs(kind: str) -> dict[str, torch.Tensor]:
    n, made = TOKENS[kind], torch.Generator().manual_seed(1)
    ids = torch.tensor([[1, 2, 122, *[120] * n, 5, 6, 7, 8, 9]])
    given: dict[str, torch.Tensor] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if kind in AXES:
        return given | {
            "pixel_values": torch.randn(48, 3 * 2 * 16, generator=made),
            "image_grid_thw": torch.tensor([[1, 6, 8]]),
            "mm_token_type_ids": (ids == 120).long(),
        }
    if kind == "gemma3":
        given["token_type_ids"] = (ids == 120).long()
    shape = (1, 1, 3, 32, 32) if kind in ("smolvlm", "idefics3") else (1, 3, 32, 32)
    return given | {"pixel_values": torch.randn(*shape, generator=made)}
