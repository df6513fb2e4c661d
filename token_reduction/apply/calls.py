"""A forward of a multimodal model, seen from outside: its arguments, its pixels, its cache."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

from hardware_specs.errors import InvalidInputError, UnsupportedError
from token_reduction.caches import cache_in

if TYPE_CHECKING:
    from torch import Tensor

    from token_reduction.apply.anatomy import Parts
    from token_reduction.apply.patching import Patches

#: modality -> names its pixels go by.
PIXELS = {
    "image": ("pixel_values", "pixel_values_images"),
    "video": ("pixel_values_videos",),
}
#: On a cache, by layer: its `Columns`, from the first layer that tokens were cut before.
LAYERS_NOTE = "_reduced_layers"


def bind_call(module: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """Return a forward's arguments by name, those in its `**kwargs` among them."""
    names = list(inspect.signature(type(module).forward).parameters)[1:]
    return {**dict(zip(names, args, strict=False)), **kwargs}


def brings_visuals(call: dict[str, Any]) -> bool:
    """Whether a forward brings images or videos, as pixels or encoded.

    Raises:
        InvalidInputError: a prompt of embeddings, in which visual tokens cannot be told apart.
    """
    return bool(call.get("mm_encoder_outputs") or _pixels(call))


def pixels_of(call: dict[str, Any], method: str) -> dict[str, Tensor]:
    """Return the pixels a forward brings, by modality.

    Raises:
        InvalidInputError: features that were encoded elsewhere, or placeholders filled elsewhere.
    """
    if call.get("mm_encoder_outputs"):
        raise InvalidInputError(
            f"{method} reduces tokens while the model encodes the pixels; give pixel values, "
            "not mm_encoder_outputs"
        )
    return _pixels(call)


def _pixels(call: dict[str, Any]) -> dict[str, Tensor]:
    found = {}
    for modality, names in PIXELS.items():
        values = next((call[name] for name in names if call.get(name) is not None), None)
        if values is not None and len(values):
            found[modality] = values
    if not found and call.get("input_ids") is None and not cached_tokens(cache_in(call)):
        raise InvalidInputError(
            "inputs_embeds without pixels do not say which tokens are visual; "
            "give input_ids and pixel values"
        )
    return found


def encode_in_forwards(parts: Parts, patches: Patches) -> None:
    """Keep `generate` from encoding the pixels by itself, before any forward, as it does from 5.23 on."""
    if hasattr(parts.model, "_supports_mm_encoder_outputs"):
        patches.replace(parts.model, "_supports_mm_encoder_outputs", lambda: False)


def image_sizes_of(call: dict[str, Any]) -> list[tuple[int, int]]:
    """Return (height, width) of each image given to a tiled model, or an empty list."""
    sizes = call.get("image_sizes")
    if sizes is None:
        return []
    return [(int(height), int(width)) for height, width in torch.as_tensor(sizes).tolist()]


def cached_tokens(cache: Any) -> int:
    """Tokens that a cache is of, those cut before the first layer included; 0 for none."""
    length = 0 if cache is None else int(cache.get_seq_length())
    first = getattr(cache, LAYERS_NOTE, {}).get(0)
    return length if not length or first is None else length + first.prompt - first.index.shape[1]


def require_plain_cache(cache: Any, method: str) -> None:
    """Raise on a cache whose length is fixed.

    Raises:
        UnsupportedError: a static cache.
    """
    if cache is not None and getattr(cache, "is_compileable", False):
        raise UnsupportedError(
            f"{method} makes the cache shorter than the prompt, and {type(cache).__name__} has a "
            "fixed length; use the default dynamic cache"
        )


def frames_of(modality: str, pixels: Tensor, call: dict[str, Any]) -> list[int]:
    """Return the frames of each video, or pairs of them where the tower makes one of two; empty for images.

    `pixels` are [videos, frames, ...], or the patches of all videos, whose grids the call brings.
    """
    if modality != "video":
        return []
    grids = call.get("video_grid_thw")
    if grids is not None:
        return [int(grid[0]) for grid in grids.tolist()]
    return [int(pixels.shape[1])] * len(pixels)


def plain_mask(call: dict[str, Any]) -> Tensor | None:
    """Return a forward's attention mask, [b, s], or None.

    Raises:
        UnsupportedError: a mask with one row per query.
    """
    mask: Tensor | None = call.get("attention_mask")
    if mask is not None and not (isinstance(mask, torch.Tensor) and mask.ndim == 2):
        raise UnsupportedError(
            "reduce_tokens takes an attention mask [batch, tokens] and builds the rest itself"
        )
    return mask


def encode(parts: Parts, modality: str, pixels: Tensor, call: dict[str, Any]) -> Any:
    """Run tower and projector with the model's own code on what it knows of a forward's arguments."""
    encoder = getattr(parts.base, f"get_{modality}_features")
    # The first argument's name changed between versions of transformers, so it goes by position.
    names = list(inspect.signature(encoder).parameters)[1:]
    known = {name: call[name] for name in names if call.get(name) is not None}
    for name in PIXELS["image"] + PIXELS["video"]:
        known.pop(name, None)
    return encoder(pixels, return_dict=True, **known)


def split_items(parts: Parts, modality: str, features: Any, pixels: Tensor) -> list[Tensor]:
    """Return the unreduced tokens of each image or video, [n, d]."""
    if not isinstance(features, torch.Tensor):
        return [item.flatten(0, -2) for item in features]
    items = list(features.reshape(pixels.shape[0], -1, features.shape[-1]))
    if modality == "video" and parts.family.newline_ends_clips:
        # Older versions of transformers add the newline token that ends a video outside the encoder.
        side = -(-parts.towers[0].side // 2)
        newline: Any = parts.base.image_newline
        pooled = pixels.shape[1] * side * side
        items = [
            torch.cat((item, newline[None].to(item))) if len(item) == pooled else item
            for item in items
        ]
    return items
