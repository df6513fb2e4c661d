"""The config of LLaVA's own program, `model_type: llava_llama`, read as the one of its conversion.

FastV, PruMerge, VisionZip and others run on checkpoints in this format: the language model's keys stand
at the top, and `mm_` keys name the tower by its hub id. What `transformers` calls LLaVA or LLaVA-NeXT is the
same model: https://github.com/haotian-liu/LLaVA, llava/model/llava_arch.py and multimodal_encoder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from costmodel.models.reading import Section

#: Model types of the program, and the decoder that each is.
DECODER_OF = {
    "llava_llama": "llama",
    "llava_mistral": "mistral",
    "llava_qwen": "qwen2",
}
_CLIP_LARGE = {
    "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096,
    "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14, "projection_dim": 768,
}  # fmt: skip
#: Towers by their hub id: their own configs there.
TOWERS: dict[str, dict[str, Any]] = {
    "openai/clip-vit-large-patch14": _CLIP_LARGE | {"image_size": 224},
    "openai/clip-vit-large-patch14-336": _CLIP_LARGE | {"image_size": 336},
    "google/siglip-so400m-patch14-384": {
        "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304,
        "num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14, "image_size": 384,
        "vision_use_head": False,
    },
}  # fmt: skip


def is_original(config: Section) -> bool:
    """Tell whether a config is in the format of LLaVA's own program."""
    return "mm_vision_tower" in config and "vision_config" not in config


def as_transformers(config: Section) -> dict[str, Any]:
    """Return the config that the conversion of such a checkpoint has.

    Raises:
        InvalidFileError: a tower, a projector or a way of tiling that the program's later forks have.
    """
    kind = config.word("model_type")
    # The first checkpoints name no decoder: Llama was the only one.
    kind = kind if "_" in kind else f"{kind}_llama"
    if kind not in DECODER_OF:
        raise config.fail("model_type", f"is {kind!r}; known are {', '.join(DECODER_OF)}")
    tower = config.word("mm_vision_tower")
    if tower not in TOWERS:
        raise config.fail("mm_vision_tower", f"is {tower!r}; known are {', '.join(TOWERS)}")
    width = config.values.get("mm_hidden_size", TOWERS[tower]["hidden_size"])
    if width != TOWERS[tower]["hidden_size"]:
        raise config.fail(
            "mm_hidden_size",
            f"is {width!r}; {tower} has features of {TOWERS[tower]['hidden_size']}",
        )
    projector = config.values.get("mm_projector_type", "linear")
    if projector != "mlp2x_gelu":
        raise config.fail(
            "mm_projector_type", f"is {projector!r}; transformers' LLaVA has mlp2x_gelu alone"
        )
    values = config.values
    tiling = values.get("image_aspect_ratio") or "square"
    if tiling not in ("square", "pad", "anyres"):
        raise config.fail(
            "image_aspect_ratio", f"is {tiling!r}; known are square, pad and anyres (LLaVA-NeXT's)"
        )
    merged = values.get("mm_patch_merge_type", "spatial_unpad")
    if tiling == "anyres" and merged != "spatial_unpad":
        raise config.fail(
            "mm_patch_merge_type",
            f"is {merged!r}; transformers' LLaVA-NeXT has spatial_unpad alone",
        )
    text = {key: value for key, value in values.items() if not key.startswith(("mm_", "image_"))}
    document: dict[str, Any] = {
        "model_type": "llava",
        "text_config": text | {"model_type": DECODER_OF[kind]},
        "vision_config": dict(TOWERS[tower]),
        "vision_feature_layer": values.get("mm_vision_select_layer", -2),
        "vision_feature_select_strategy": (
            "full" if values.get("mm_vision_select_feature") == "cls_patch" else "default"
        ),
        "projector_hidden_act": "gelu",
    }
    for key in ("dtype", "torch_dtype", "quantization_config", "_name_or_path"):
        if key in values:
            document[key] = values[key]
    if tiling == "anyres":
        document |= {
            "model_type": "llava_next",
            "image_grid_pinpoints": values.get("image_grid_pinpoints"),
        }
    return document
