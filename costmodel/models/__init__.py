"""Models: their shape, their parameters and their visual tokens, from Hugging Face configs.

Nothing here imports torch or transformers; names are loaded when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

_HOMES = {
    "AnyRes": "anyres",
    "CropGeometry": "geometry",
    "Family": "families.family",
    "ModelConfig": "model",
    "ProjectorConfig": "projector",
    "TextConfig": "text",
    "VideoRule": "geometry",
    "VisionConfig": "vision",
    "VisualInput": "geometry",
    "config_dict": "registry",
    "describe": "summary",
    "get_family": "families",
    "list_families": "families",
    "list_models": "registry",
    "load_model": "registry",
    "model_from_config": "registry",
    "register_family": "families",
}

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


def __getattr__(name: str) -> Any:
    """Load a public name from its module when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
