"""Random inputs of the right shape for each model family, and the way its visual tokens come out.

A measurement needs a picture's cost, not a picture: pixels are random numbers of the size the
model's processor would produce for its default input (one 336 x 336 image for LLaVA-1.5, tiles for
the anyres models, frames for video). Text is arbitrary ids; equal ids cost the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt, prod
from typing import TYPE_CHECKING, Any

from costmodel.models.families import family_of, get_family
from costmodel.models.model import image_sizes as per_image
from costmodel.models.tiles import TileGeometry
from costmodel.scenario import visual_units
from hardware_specs.errors import InvalidInputError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from torch import nn

    from costmodel.models import ModelConfig
    from costmodel.models.model import ImageSize

#: Text tokens before the picture, as in "USER: <image>": the rest follows it.
_TEXT_BEFORE = 5
#: What models with positions on three axes call the kinds of tokens in `mm_token_type_ids`; text is 0.
_IMAGE, _VIDEO = 1, 2


@dataclass(frozen=True, slots=True)
class VisualInputs:
    """Pixels for a batch, and the visual tokens they become.

    Args:
        arguments: keyword arguments of the model's forward.
        batch_size: sequences.
        images: images (or videos) per sequence.
        crops: runs of the vision tower per sequence (tiles, frames).
        placeholder_id: the token id that the visual tokens replace.
        crops_of_images: of them, those of each image where an image's tiles are handed over one by one.
        pieces: visual tokens of each piece where text stands between them; empty for one.
        whole: whether the model must be called with ids and pixels, for positions in three axes and
            features that go around the embeddings.
    """

    arguments: Mapping[str, torch.Tensor]
    batch_size: int
    images: int
    crops: int
    placeholder_id: int
    crops_of_images: tuple[int, ...] = ()
    pieces: tuple[int, ...] = ()
    whole: bool = False

    def call(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the arguments of a forward over ids with the placeholders in them."""
        kinds = (ids == self.placeholder_id).to(ids.dtype)
        kinds = kinds * (_VIDEO if "pixel_values_videos" in self.arguments else _IMAGE)
        extra = {"mm_token_type_ids": kinds} if self.whole else {}
        return {"input_ids": ids, **self.arguments, **extra}


def sizes_of(image_size: ImageSize | None) -> tuple[tuple[int, int], ...]:
    """Return the (height, width) of every image that were given, as a configuration holds them.

    >>> sizes_of((480, 640)), sizes_of(None)
    (((480, 640),), ())
    """
    return tuple(size for size in per_image(image_size, None) if size is not None)


def visual_inputs(
    model: nn.Module,
    shape: ModelConfig,
    *,
    batch_size: int,
    visual_tokens: int | None,
    images: int | None = None,
    image_sizes: Sequence[tuple[int, int]] = (),
    frames: int | None = None,
) -> VisualInputs:
    """Return random pixels that give at least so many visual tokens per sequence.

    There are as many images as the cost model reads in that count, so 2880 tokens on LLaVA-1.5 are five
    images and five runs of its tower.

    Args:
        model: a multimodal model with weights.
        shape: the cost model's description of the model.
        batch_size: sequences.
        visual_tokens: needed per sequence; None for the input's own number.
        images: images per sequence; None for as many as the count says.
        image_sizes: (height, width) of every image, or one for each; empty for the default image.
        frames: of a clip in place of images.

    Raises:
        UnsupportedError: the model has no vision tower or no known kind of input.
        InvalidInputError: not as many sizes as images, or images that do not give the tokens.
    """
    import torch

    config: Any = model.config
    if shape.vision is None:
        raise UnsupportedError(f"{shape.name} has no vision tower, so it takes no pixels")
    weight = next(model.parameters())
    size = tuple(image_sizes) if len(image_sizes) > 1 else next(iter(image_sizes), None)
    units = visual_units(shape, images, size, frames)
    items, crops, *_ = units.read(visual_tokens or units.counted.tokens)
    side = shape.vision.image_size
    channels = shape.vision.num_channels
    generator = torch.Generator("cpu").manual_seed(0)

    def pixels(*leading: int) -> torch.Tensor:
        values = torch.randn(*leading, channels, side, side, generator=generator)
        return values.to(weight.device, _floating(model))

    rows = batch_size * items
    arguments: dict[str, Any]
    if shape.geometry.keeps_size:
        return _native(model, shape, visual_tokens, items, size, frames, batch_size, generator)
    # Families that cut tiles take a frame as one tile, whatever they call it.
    clip = frames is not None and not isinstance(shape.geometry, TileGeometry)
    if clip or (shape.takes_clips and images is None and not image_sizes):
        arguments = {"pixel_values_videos": pixels(rows, crops // items)}
        placeholder = config.video_token_id
        return VisualInputs(arguments, batch_size, items, crops, placeholder)
    family = get_family(shape.model_type)
    if shape.anyres is not None:
        # A model that cuts images into tiles needs the sizes to put the tokens together again.
        sizes = [each or shape.anyres.largest for each in per_image(size, items)]
        alone = items == 1 or shape.geometry.among_others is None
        tiles = [shape.anyres.crops(*each) if alone else 1 for each in sizes]
        arguments = {
            "pixel_values": pixels(rows, max(tiles)),  # images of fewer tiles are padded
            "image_sizes": torch.tensor(sizes * batch_size),
        }
        if not alone:
            arguments["batch_num_images"] = torch.tensor([items] * batch_size)
    elif family.pixels_by_sample:
        arguments = {family.pixels: pixels(batch_size, crops)}
    else:
        arguments = {family.pixels: pixels(batch_size * crops)}
    of_images: tuple[int, ...] = ()
    if family.tiles is not None and frames is None:
        sizes_given = per_image(size, items)
        of_images = tuple(shape.geometry.image(each, exact=True).crops for each in sizes_given)
    return VisualInputs(arguments, batch_size, items, crops, config.image_token_id, of_images)


def _native(
    model: nn.Module,
    shape: ModelConfig,
    visual_tokens: int | None,
    images: int,
    size: Any,
    frames: int | None,
    batch_size: int,
    generator: torch.Generator,
) -> VisualInputs:
    """Return patches of images or a clip of their own resolution, as their processor lays them out.

    A bare count of tokens is that of images of as many, all alike, as near to a square as it gets.
    """
    import torch

    assert shape.vision is not None  # noqa: S101 - the caller looked
    config: Any = model.config
    geometry: Any = shape.geometry
    merge = shape.vision.merge
    names, placeholder = ("pixel_values", "image_grid_thw"), config.image_token_id
    grids = [(1, *geometry.grid(each)) for each in per_image(size, images)]
    if frames is not None:
        names = ("pixel_values_videos", "video_grid_thw")
        placeholder = config.video_token_id
        grids = [geometry.clip_grid(frames, per_image(size, None)[0])]
    elif size is None and visual_tokens is not None:
        each = visual_tokens // images
        rows = next(side for side in range(isqrt(each), 0, -1) if each % side == 0)
        grids = [(1, rows * merge, each // rows * merge)] * images
    grid = torch.tensor(grids * batch_size)
    patches = torch.randn(int(grid.prod(1).sum()), shape.vision.patch_pixels, generator=generator)
    weight = next(model.parameters())
    values = (patches.to(weight.device, _floating(model)), grid.to(weight.device))
    arguments = dict(zip(names, values, strict=True))
    crops = images if frames is None else grids[0][0]
    # Images stand apart, and so do pairs of frames where their times are written.
    apart = [(1, *each) for t, *each in grids for _ in range(t)] if geometry.timestamps else grids
    pieces = tuple(prod(each) // merge**2 for each in apart)
    return VisualInputs(
        arguments, batch_size, images, crops, placeholder, pieces=pieces, whole=True
    )


def _floating(model: nn.Module) -> torch.dtype:
    dtype: torch.dtype = model.dtype  # type: ignore[assignment]
    return dtype


def encode(model: nn.Module, inputs: VisualInputs) -> torch.Tensor:
    """Run vision tower and projector and return the visual tokens, [b, n, d].

    Args:
        model: a multimodal model.
        inputs: the pixels.
    """
    import torch

    from token_reduction.apply.anatomy import dissect
    from token_reduction.apply.calls import split_items

    base: Any = model.model
    arguments = dict(inputs.arguments)
    if "pixel_values_videos" in arguments:
        # By position: the argument's name differs between versions of transformers.
        output = base.get_video_features(*arguments.values())
    else:
        output = base.get_image_features(arguments.pop(next(iter(arguments))), **arguments)
    features: Any = output.pooler_output
    pixels = arguments.get("pixel_values_videos")
    if pixels is not None and (family := family_of(model)) and family.newline_ends_clips:
        # Older releases add the token that ends a clip outside the encoder.
        features = split_items(dissect(model), "video", features, pixels)
    if isinstance(features, list | tuple):
        features = torch.cat([each.flatten(0, -2) for each in features])
    tokens: torch.Tensor = features.reshape(inputs.batch_size, -1, features.shape[-1])
    return tokens


def text_ids(model: nn.Module, count: int, batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the text before and after the picture as ids, [b, s] each, count tokens together.

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
