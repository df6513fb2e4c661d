"""Models: their shape, their parameters and their visual tokens, from Hugging Face configs.

Nothing here imports torch or transformers; names are loaded when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hardware_specs.lazily import public

if TYPE_CHECKING:
    from costmodel.models.anyres import AnyRes
    from costmodel.models.families import get_family, list_families, register_family
    from costmodel.models.families.family import Family
    from costmodel.models.geometry import CropGeometry, VideoRule, VisualInput
    from costmodel.models.model import ModelConfig
    from costmodel.models.projector import ProjectorConfig
    from costmodel.models.registry import (
        config_dict,
        list_models,
        load_model,
        model_from_config,
    )
    from costmodel.models.summary import describe
    from costmodel.models.text import TextConfig
    from costmodel.models.vision import VisionConfig

__all__ = [
    "AnyRes",
    "CropGeometry",
    "Family",
    "ModelConfig",
    "ProjectorConfig",
    "TextConfig",
    "VideoRule",
    "VisionConfig",
    "VisualInput",
    "config_dict",
    "describe",
    "get_family",
    "list_families",
    "list_models",
    "load_model",
    "model_from_config",
    "register_family",
]

__getattr__, __dir__ = public(
    __name__,
    {
        "anyres": "AnyRes",
        "families": "get_family list_families register_family",
        "families.family": "Family",
        "geometry": "CropGeometry VideoRule VisualInput",
        "model": "ModelConfig",
        "projector": "ProjectorConfig",
        "registry": "config_dict list_models load_model model_from_config",
        "summary": "describe",
        "text": "TextConfig",
        "vision": "VisionConfig",
    },
)
