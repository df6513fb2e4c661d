"""What `transformers` makes of images and clips, for every family's tests."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from costmodel.models import config_dict, load_model

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="session")
def clip_rows() -> Callable[[str, int], int]:
    """Rows of features that transformers makes of a clip, on the meta device."""
    import torch
    from transformers import AutoConfig, AutoModel

    def rows(name: str, frames: int) -> int:
        values = config_dict(f"{name}@layers=1,width=1/4")
        config = AutoConfig.for_model(values.pop("model_type"), **values)
        with torch.device("meta"), torch.no_grad():
            model: Any = AutoModel.from_config(config)
            side = config.vision_config.image_size
            out = model.get_video_features(torch.zeros(1, frames, 3, side, side), return_dict=True)
        return sum(row.shape[:-1].numel() for row in out.pooler_output)

    return rows


@pytest.fixture(scope="session")
def processor_tokens() -> Callable[[type, str, int, int], int]:
    """Tokens of an image by a processor's own arithmetic, class token taken off; no tokenizer needed."""

    def tokens(kind: Any, name: str, height: int, width: int) -> int:
        config, vision = config_dict(name), load_model(name).vision
        assert vision is not None
        fake = SimpleNamespace(
            image_processor=SimpleNamespace(image_grid_pinpoints=config["image_grid_pinpoints"]),
            patch_size=14,
            num_additional_image_tokens=int(vision.has_cls),
            num_image_tokens=729,
            vision_aspect_ratio=config.get("vision_aspect_ratio"),
        )
        fake._get_unpadded_features = partial(kind._get_unpadded_features, fake)
        side = vision.image_size
        return kind._get_number_of_features(fake, height, width, side, side) - vision.has_cls

    return tokens


@pytest.fixture(scope="session")
def packed_rows() -> Callable[..., int]:
    """Rows of real features of an image, cut, unpadded, shrunk and joined by a model's own code."""
    import torch

    def rows(kind: Any, name: str, crops: int, height: int, width: int, **arguments: Any) -> int:
        vision = load_model(name).vision
        assert vision is not None
        config = SimpleNamespace(
            vision_config=SimpleNamespace(
                image_size=vision.image_size, patch_size=vision.patch_size
            ),
            image_grid_pinpoints=config_dict(name)["image_grid_pinpoints"],
        )
        packed, lengths = kind.pack_image_features(
            SimpleNamespace(config=config),
            [torch.zeros(crops, vision.patches, 1)],
            [[height, width]],
            image_newline=torch.zeros(1),
            **arguments,
        )
        assert len(packed[0]) == int(lengths[0])
        return len(packed[0])

    return rows
