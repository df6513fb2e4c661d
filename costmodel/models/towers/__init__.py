"""Vision towers by the `model_type` of a config's `vision_config`: a reader each, and their blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from costmodel.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from costmodel.models.reading import Section
    from costmodel.models.vision import VisionConfig


class Tower(NamedTuple):
    """One kind of vision tower.

    Attributes:
        label: what people call it.
        defaults: what its config class assumes where a config is silent.
        read: from its config object to the tower, a single one whose last features are all read.
        keys: what its config calls width, depth and heads where that is not the usual name.
    """

    label: str
    defaults: Mapping[str, Any]
    read: Callable[[Section], VisionConfig]
    keys: Mapping[str, str] = {}


TOWERS: Registry[Tower] = Registry(
    "vision tower",
    {
        "clip_vision_model": "costmodel.models.towers.clip",
        "siglip_vision_model": "costmodel.models.towers.siglip",
        "internvl_vision": "costmodel.models.towers.internvl",
        "idefics3_vision": "costmodel.models.towers.idefics3",
        "smolvlm_vision": "costmodel.models.towers.idefics3",
        "qwen2_vl_vision": "costmodel.models.towers.qwen2_vl",
        "qwen2_vl": "costmodel.models.towers.qwen2_vl",
        "qwen2_5_vl_vision": "costmodel.models.towers.qwen2_5_vl",
        "qwen2_5_vl": "costmodel.models.towers.qwen2_5_vl",
        "qwen3_vl_vision": "costmodel.models.towers.qwen3_vl",
        "qwen3_vl": "costmodel.models.towers.qwen3_vl",
        "qwen3_vl_moe_vision": "costmodel.models.towers.qwen3_vl",
        "qwen3_vl_moe": "costmodel.models.towers.qwen3_vl",
    },
    attribute="TOWER",
)
