"""What `transformers`' config classes assume where a config.json is silent.

Hub configs leave out what equals the default of their class: LLaVA-1.5-7B's text_config names neither
its width nor its layers. Values of transformers 5.17 to 5.23: configuration_llama.py,
configuration_mistral.py, configuration_qwen2.py, configuration_clip.py, configuration_siglip.py and the
configuration files of the LLaVA family.
"""

from __future__ import annotations

from typing import Any

_TEXT: dict[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "use_sliding_window": True,
    "sliding_window": None,
}

#: Language models by `model_type`.
TEXT: dict[str, dict[str, Any]] = {
    "llama": _TEXT,
    "mistral": _TEXT
    | {
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
    },
    "qwen2": _TEXT
    | {
        "vocab_size": 151936,
        "intermediate_size": 22016,
        "num_key_value_heads": 32,
        "max_position_embeddings": 32768,
        "use_sliding_window": False,
        "sliding_window": 4096,
    },
}

_VISION: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
}

#: Vision towers by `model_type`.
VISION: dict[str, dict[str, Any]] = {
    "clip_vision_model": _VISION | {"patch_size": 32, "hidden_act": "quick_gelu"},
    "siglip_vision_model": _VISION
    | {"patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "vision_use_head": True},
}

_LLAVA: dict[str, Any] = {
    "projector_hidden_act": "gelu",
    "vision_feature_select_strategy": "default",
    "vision_feature_layer": -2,
    "multimodal_projector_bias": True,
    "tie_word_embeddings": False,
}

_LLAVA_NEXT = _LLAVA | {
    "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
}

#: Multimodal models by `model_type`.
MULTIMODAL: dict[str, dict[str, Any]] = {
    "llava": _LLAVA,
    "llava_next": _LLAVA_NEXT,
    "llava_next_video": _LLAVA_NEXT | {"spatial_pool_mode": "average", "spatial_pool_stride": 2},
    "video_llava": _LLAVA,
    "llava_onevision": _LLAVA
    | {
        "vision_feature_select_strategy": "full",
        "vision_feature_layer": -1,
        "vision_aspect_ratio": "anyres_max_9",
        "image_grid_pinpoints": [
            [384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)
        ],
    },
}
