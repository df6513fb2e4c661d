"""A LLaVA-1.5-7B checkpoint's config.json with a precision of its own, and what it is priced as."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from costmodel.models import config_dict, load_model
from costmodel.precision.resolving import resolve_precision
from costmodel.weights import model_weight_bytes
from hardware_specs import get_hardware

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from costmodel.models import ModelConfig
    from costmodel.precision.resolving import Resolved


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., ModelConfig]:
    """Write a config.json of LLaVA-1.5-7B, or of another shipped shape, and load it."""

    def write(
        quantised: Any = None, shape: str = "llava-1.5-7b", *, inside: bool = False, **keys: Any
    ) -> ModelConfig:
        document = config_dict(shape)
        document.pop("torch_dtype", None)
        document |= {"dtype": "float16"} | keys
        if quantised is not None:
            place = document["text_config"] if inside else document
            place["quantization_config"] = quantised
        (tmp_path / "config.json").write_text(json.dumps(document), encoding="utf-8")
        return load_model(tmp_path)

    return write


@pytest.fixture
def resolved() -> Callable[..., Resolved]:
    """What `auto` makes of a checkpoint on a device."""

    def resolve(model: ModelConfig, device: str = "nvidia-h100-sxm5-80gb") -> Resolved:
        return resolve_precision("auto", model, get_hardware(device))

    return resolve


@pytest.fixture
def weight_bytes(resolved: Callable[..., Resolved]) -> Callable[..., int]:
    """Bytes of a checkpoint's weights on a device that has all arithmetic it asks for."""

    def size(model: ModelConfig, device: str = "nvidia-b200-sxm-180gb") -> int:
        return model_weight_bytes(model, resolved(model, device).precision)

    return size
