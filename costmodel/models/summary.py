"""What a model is made of, as plain data: parameters by part, tokens per image, KV bytes per token."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from costmodel.models.registry import load_model

if TYPE_CHECKING:
    from pathlib import Path

    from costmodel.models.model import ImageSize, ModelConfig
    from costmodel.models.projector import ProjectorConfig
    from costmodel.models.text import TextConfig
    from costmodel.models.vision import VisionConfig

#: Bytes of one number of the KV cache in half precision.
HALF_BYTES = 2


def describe(
    model: str | Path | ModelConfig,
    *,
    image_size: ImageSize | None = None,
    frames: int | None = None,
) -> dict[str, Any]:
    """Return a model's shape, parameters and visual tokens, ready for JSON.

    `kv_bytes_per_token` is 2 l k e x 2 bytes: K and V of one token over all layers, in half precision.

    Args:
        model: as in `load_model`.
        image_size: (height, width) in pixels of the image whose tokens to count; None is the default.
        frames: frames of the clip whose tokens to count, for video models.

    Raises:
        VlmRooflineError: as `load_model` and `ModelConfig.visual_input`.

    >>> summary = describe("llava-1.5-7b")
    >>> summary["parameters"]["total"], summary["kv_bytes_per_token"]
    (7063427072, 524288)
    """
    config = load_model(model)
    summary: dict[str, Any] = {
        "name": config.name,
        "model_type": config.model_type,
        "family": config.family,
        "source": config.source,
        "parameters": {**config.parameter_parts, "total": config.parameters},
        "kv_bytes_per_token": HALF_BYTES * config.text.kv_values_per_token,
        "text": _numbers(config.text) | {"sliding_layers": config.text.sliding_layers},
        "vision": None,
        "projector": None,
        "visual_input": None,
        "visual_input_transformers": None,
        "from_defaults": list(config.from_defaults),
    }
    paper = config.visual_input(image_size=image_size, frames=frames)
    if config.vision is not None and config.projector is not None:
        exact = config.visual_input(image_size=image_size, frames=frames, count="transformers")
        summary["vision"] = _numbers(config.vision) | {
            "tokens": config.vision.tokens,
            "selected_tokens": config.vision.selected_tokens,
        }
        summary["projector"] = _numbers(config.projector)
        summary["visual_input"] = paper._asdict()
        summary["visual_input_transformers"] = exact._asdict()
    return summary


def _numbers(part: TextConfig | VisionConfig | ProjectorConfig) -> dict[str, Any]:
    """Return a part's numbers and words, without its blocks."""
    return {f.name: getattr(part, f.name) for f in fields(part) if f.repr}
