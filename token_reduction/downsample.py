"""Downsampling: a smaller picture for the vision tower.

Source: the baseline of VTC-Bench ("Are We Using the Right Benchmark: An Evaluation Framework for Visual Token
Compression Methods", arXiv 2510.07143), which finds that it beats many methods; no program of its own.
Place: before the vision tower, every crop by itself, so that the tower sees fewer patches, too. CLIP's and
SigLIP's position embeddings are interpolated to the smaller grid, as `transformers` does for other sizes.

Complexity: one pass over the pixels. The picture is resized bicubically, with antialiasing. Models that
take images at their own resolution need no method: give their processor a smaller picture.
"""

from __future__ import annotations

from math import isqrt
from typing import TYPE_CHECKING, Any

import torch

from costmodel.methods.downsample import squares_kept
from hardware_specs.errors import UnsupportedError
from token_reduction.apply.crops import Crops
from token_reduction.tokens.checks import misfit
from token_reduction.tokens.observation import observed

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from token_reduction.apply.anatomy import Tower
    from token_reduction.apply.places import Host


def downsample(pixels: Tensor, keep: float, *, patch: int) -> Tensor:
    """Return square crops with fewer pixels.

    Args:
        pixels: [c, channels, s * patch, s * patch].
        keep: patches of each crop: a square number, or a ratio of s * s, which gives the nearest square.
        patch: pixels along a side of a patch.

    Returns:
        [c, channels, r * patch, r * patch], r * r patches.

    Raises:
        InvalidInputError: no square crops of whole patches, a count that is no square or out of range.

    >>> downsample(torch.zeros(1, 3, 56, 56), 0.25, patch=14).shape
    torch.Size([1, 3, 28, 28])
    """
    side = pixels.shape[-1] // patch
    if pixels.ndim != 4 or pixels.shape[-2:] != (side * patch, side * patch) or not side:
        raise misfit("downsample", f"square crops [c, 3, h, w] of whole patches of {patch}", pixels)
    kept = isqrt(int(squares_kept(keep, side * side)))
    smaller: Tensor = torch.nn.functional.interpolate(
        pixels, size=(kept * patch, kept * patch), mode="bicubic", antialias=True
    )
    return smaller


def plug(host: Host) -> None:
    """Make the pixels of every tower fewer, and interpolate its positions.

    Raises:
        UnsupportedError: a tower that cannot interpolate them, or one whose grid is merged behind it.
    """
    host.parts.require_vision_layers(host.method.name)
    for tower in host.parts.towers:
        module: Any = tower.module
        embeddings = getattr(module, "embeddings", None)
        if not hasattr(embeddings, "interpolate_pos_encoding"):
            raise UnsupportedError(
                f"{host.method.name} needs a tower that interpolates its positions; "
                f"{type(module).__name__} does not"
            )
        host.patches.before(module, _resized(host, tower))
    host.shorten(Crops(host.parts, host.record, None, before_projector=False), None)


def _resized(host: Host, tower: Tower) -> Callable[..., Any]:
    keep, config = host.method.settled_keep, tower.module.config
    patch = int(config.patch_size)  # type: ignore[union-attr,arg-type]

    def hook(_module: Any, args: Any, kwargs: Any) -> Any:
        given = dict(kwargs)
        pixels, *rest = args or (given.pop("pixel_values"),)
        host.record.unit = "crop"
        with observed("reduction"):
            smaller = downsample(pixels, keep, patch=patch)
        return (smaller, *rest), {**given, "interpolate_pos_encoding": True}

    return hook
