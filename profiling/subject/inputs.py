"""Random inputs of the right shape for each model family, and the way its visual tokens come out.

A measurement needs a picture's cost, not a picture: pixels are random numbers of the size the
model's processor would produce for its default input (one 336 x 336 image for LLaVA-1.5, tiles for
the anyres models, frames for video). Text is arbitrary ids; equal ids cost the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import InvalidInputError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import nn

    from costmodel.models import ModelConfig

#: Text tokens before the picture, as in "USER: <image>": the rest follows it.
_TEXT_BEFORE = 5


@dataclass(frozen=True, slots=True)
class VisualInputs:
    """Pixels for a batch, and the visual tokens they become.

    Args:
        arguments: keyword arguments of the model's forward.
        batch_size: sequences.
        images: images (or videos) per sequence.
        crops: runs of the vision tower per sequence (tiles, frames).
        placeholder_id: the token id that the visual tokens replace.
    """

    arguments: Mapping[str, torch.Tensor]
    batch_size: int
    images: int
    crops: int
    placeholder_id: int


def visual_inputs(
    model: nn.Module,
    shape: ModelConfig,
    *,
    batch_size: int,
    visual_tokens: int | None,
    seed: int = 0,
) -> VisualInputs:
    """Return random pixels that give at least so many visual tokens per sequence.

    images = ceil(visual tokens / tokens of the model's default input), so 2880 tokens on
    LLaVA-1.5 are five images and five runs of its tower.

    Args:
        model: a multimodal model with weights.
        shape: the cost model's description of the model.
        batch_size: sequences.
        visual_tokens: needed per sequence; None for the default input's own number.
        seed: fixes the pixels.

    Raises:
        UnsupportedError: the model has no vision tower or no known kind of input.
    """
    import torch

    config: Any = model.config
    if shape.vision is None:
        raise UnsupportedError(f"{shape.name} has no vision tower, so it takes no pixels")
    weight = next(model.parameters())
    default = shape.visual_input()
    images = max(1, math.ceil((visual_tokens or 0) / default.tokens))
    side = shape.vision.image_size
    channels = shape.vision.num_channels
    generator = torch.Generator("cpu").manual_seed(seed)

    def pixels(*leading: int) -> torch.Tensor:
        values = torch.randn(*leading, channels, side, side, generator=generator)
        return values.to(weight.device, _floating(model))

    rows = batch_size * images
    if shape.takes_clips:
        arguments = {"pixel_values_videos": pixels(rows, default.crops)}
        placeholder = config.video_token_id
    elif shape.anyres is not None:
        # A model that cuts images into tiles needs the size to put the tokens together again.
        size = _image_size(config, side, default.crops)
        arguments = {
            "pixel_values": pixels(rows, default.crops),
            "image_sizes": torch.tensor([size] * rows),
        }
        placeholder = config.image_token_id
    else:
        arguments = {"pixel_values": pixels(rows * default.crops)}
        placeholder = config.image_token_id
    return VisualInputs(arguments, batch_size, images, images * default.crops, placeholder)


def _floating(model: nn.Module) -> torch.dtype:
    dtype: torch.dtype = model.dtype  # type: ignore[assignment]
    return dtype


def _image_size(config: Any, side: int, crops: int) -> tuple[int, int]:
    """Return the height and width whose tiling gives so many crops (tiles and one overview)."""
    fitting = [
        (int(height), int(width))
        for height, width in config.image_grid_pinpoints
        if (height // side) * (width // side) + 1 == crops
    ]
    if not fitting:
        raise UnsupportedError(
            f"no grid of {config.model_type} has {crops - 1} tiles of {side} pixels; "
            f"it has {config.image_grid_pinpoints}"
        )
    # The squarest grid loses nothing to unpadding.
    return min(fitting, key=lambda size: abs(size[0] - size[1]))


def encode(model: nn.Module, inputs: VisualInputs) -> torch.Tensor:
    """Run vision tower and projector and return the visual tokens, [b, n, d].

    Args:
        model: a multimodal model.
        inputs: the pixels.
    """
    import torch

    base: Any = model.model
    arguments = dict(inputs.arguments)
    if "pixel_values_videos" in arguments:
        # By position: the argument's name differs between versions of transformers.
        output = base.get_video_features(arguments.pop("pixel_values_videos"))
    else:
        output = base.get_image_features(arguments.pop("pixel_values"), **arguments)
    features = output.pooler_output
    if isinstance(features, list | tuple):
        features = torch.stack(list(features))
    tokens: torch.Tensor = features.reshape(inputs.batch_size, -1, features.shape[-1])
    return tokens


def text_ids(model: nn.Module, count: int, batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the text before and after the picture as ids, [b, s] each, count tokens together.

    Args:
        model: the model whose vocabulary limits the ids.
        count: text tokens per sequence, at least 1.
        batch_size: sequences.

    Raises:
        InvalidInputError: fewer than one text token.
    """
    import torch

    if count < 1:
        raise InvalidInputError(f"a prompt has at least one text token, not {count}")
    config: Any = model.config
    text = getattr(config, "text_config", config)
    special = {
        getattr(config, name, None)
        for name in ("image_token_id", "image_token_index", "video_token_id", "pad_token_id")
    }
    word = next(index for index in range(1, text.vocab_size) if index not in special)
    device = next(model.parameters()).device
    before = min(_TEXT_BEFORE, count - 1)
    ids = torch.full((batch_size, count), word, dtype=torch.long, device=device)
    return ids[:, :before], ids[:, before:]
