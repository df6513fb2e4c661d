"""Downsampling: a smaller picture for the vision tower.

Source: the baseline of VTC-Bench ("Are We Using the Right Benchmark: An Evaluation Framework for Visual Token
Compression Methods", arXiv 2510.07143), which finds that it beats many methods; no program of its own.
Place: before the vision tower, every crop by itself, so that the tower sees fewer patches, too. CLIP's and
SigLIP's position embeddings are interpolated to the smaller grid, as `transformers` does for other sizes.

Complexity: one pass over the pixels. The picture is resized bicubically, with antialiasing. A model that
takes images at their own resolution works as if its processor had been given the smaller picture: grid,
places and prompt are that one's.
"""

from __future__ import annotations

from math import isqrt
from typing import TYPE_CHECKING, Any

import torch

from costmodel.methods.downsample import CHANNELS, smaller_grid, squares_kept
from hardware_specs.errors import UnsupportedError
from token_reduction.apply.crops import Crops
from token_reduction.apply.places import shrink_images
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


def downsample_native(
    patches: Tensor, grids: Tensor, keep: float, *, patch: int, tubelet: int, merge: int
) -> tuple[Tensor, Tensor]:
    """Return smaller images as a processor of native resolution lays them out.

    Args:
        patches: [n, 3 * tubelet * patch * patch], those of a token together, of all images.
        grids: [images, 3] pairs of frames, rows and columns of patches of each.
        keep: ratio of the tokens; rows and columns of tokens are rounded.
        patch: pixels along a side of a patch.
        tubelet: frames of a patch.
        merge: patches along a side of a token.

    Returns:
        The patches and grids of the smaller images.

    Raises:
        InvalidInputError: a count, or patches that are not those of the grids.

    >>> patches, grids = downsample_native(torch.zeros(96, 24), torch.tensor([[1, 8, 12]]), 0.25,
    ...     patch=2, tubelet=2, merge=2)
    >>> patches.shape, grids.tolist()
    (torch.Size([24, 24]), [[1, 4, 6]])
    """
    sizes = grids.tolist()
    counts = [t * h * w for t, h, w in sizes]
    width = CHANNELS * tubelet * patch * patch
    if patches.ndim != 2 or patches.shape != (sum(counts), width):
        raise misfit("downsample", f"patches [{sum(counts)}, {width}] of its grids", patches)
    found, smaller = [], []
    for part, (t, h, w) in zip(torch.split(patches, counts), sizes, strict=True):
        rows, columns = smaller_grid(h // merge, w // merge, keep)
        cells = (t, h // merge, w // merge, merge, merge, CHANNELS, tubelet, patch, patch)
        image = part.view(cells).permute(0, 6, 5, 1, 3, 7, 2, 4, 8)
        image = image.reshape(t * tubelet, CHANNELS, h * patch, w * patch)
        unit = merge * patch
        image = torch.nn.functional.interpolate(
            image, size=(rows * unit, columns * unit), mode="bicubic", antialias=True
        )
        image = image.view(t, tubelet, CHANNELS, rows, merge, patch, columns, merge, patch)
        found.append(image.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(-1, width))
        smaller.append((t, rows * merge, columns * merge))
    return torch.cat(found), torch.tensor(smaller, device=grids.device, dtype=grids.dtype)


def plug(host: Host) -> None:
    """Make the pixels of every tower fewer, and interpolate its positions.

    Raises:
        UnsupportedError: a tower that cannot interpolate them, or one whose crops are merged behind it.
        InvalidInputError: a count for a model that keeps an image's own resolution.
    """
    if host.parts.three_axes:
        keep = host.method.settled_keep
        smaller_grid(1, 1, keep)
        vision: Any = host.parts.towers[0].module.config
        sizes = {
            "patch": vision.patch_size, "tubelet": vision.temporal_patch_size,
            "merge": vision.spatial_merge_size,
        }  # fmt: skip
        shrink_images(host, lambda pixels, grids: downsample_native(pixels, grids, keep, **sizes))
        return
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
