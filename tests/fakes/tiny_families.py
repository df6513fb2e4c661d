"""A tiny random model of every LLaVA family: 36 features a crop of 84 pixels, three grids of tiles."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

CLIP = {
    "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64,
    "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 84, "patch_size": 14,
    "projection_dim": 16,
}  # fmt: skip
SIGLIP = {**CLIP, "model_type": "siglip_vision_model", "vision_use_head": False}
del SIGLIP["projection_dim"]
TEXT = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 128,
    "max_position_embeddings": 4096,
}  # fmt: skip
_GRID: dict[str, Any] = {"image_grid_pinpoints": [[84, 168], [168, 84], [168, 168]]}
_VIDEO: dict[str, Any] = {"video_token_index": 121}
#: family -> its tower and settings.
FAMILIES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "llava": (CLIP, {"image_seq_length": 36}),
    "llava_next": (CLIP, _GRID),
    "llava_next_video": (CLIP, _GRID | _VIDEO),
    "video_llava": (CLIP, _VIDEO | {"image_seq_length": 36, "video_seq_length": 111}),
    "llava_onevision": (SIGLIP, _GRID | _VIDEO | {
        "vision_feature_layer": -1, "vision_feature_select_strategy": "full",
    }),
}  # fmt: skip


def write_family(family: str, folder: Path) -> str:
    """Write the config of a family's tiny model into a folder and return its path."""
    tower, settings = FAMILIES[family]
    document = {
        "model_type": family, "text_config": TEXT, "vision_config": tower, "image_token_index": 120,
        "projector_hidden_act": "gelu", **settings,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(document))
    return str(folder)
