"""Which part of a picture each crop shows, found by asking the processor itself.

Processors resize, crop, pad to a square, or cut into tiles. Rather than repeat their rules, a picture
whose colours are its coordinates is sent through: red grows from left to right, green from top to
bottom. A black and a white picture of the same size calibrate the colours, and show where padding is:
there, both give the same. A straight line through what comes back is the way from crop to picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Viewport:
    """The part of a picture that a crop shows: its edges in the picture's pixels.

    It may reach beyond the picture where the processor padded.
    """

    left: float
    top: float
    right: float
    bottom: float


def pixel_crops(processor: Any, image: Image) -> np.ndarray:
    """Send a picture through an image processor: [crops, channels, height, width].

    Raises:
        InvalidInputError: the processor gives nothing that looks like pixels.
    """
    output = processor(images=image, return_tensors="np")
    for name in ("pixel_values", "pixel_values_images"):
        if name in output:
            values = np.asarray(output[name])
            return values.reshape(-1, *values.shape[-3:])
    raise InvalidInputError(
        f"{type(processor).__name__} gives {', '.join(output)} and no pixel values"
    )


def find_viewports(
    process: Callable[[Image], np.ndarray], width: int, height: int
) -> list[Viewport]:
    """Find what each crop of a picture of that size in pixels shows.

    `process` gives the crops of a picture, [crops, channels, height, width].

    >>> from PIL import Image
    >>> def middle(image):  # a processor that crops the middle square
    ...     side = min(image.size)
    ...     left, top = (image.width - side) // 2, (image.height - side) // 2
    ...     square = image.crop((left, top, left + side, top + side))
    ...     return np.asarray(square, dtype=float).transpose(2, 0, 1)[None]
    >>> [view] = find_viewports(middle, 300, 200)
    >>> round(view.left), round(view.right), round(view.top), round(view.bottom)
    (50, 250, 0, 200)
    """
    from PIL import Image

    ramp = np.zeros((height, width, 3), dtype=np.uint8)
    ramp[..., 0] = np.round(255 * (np.arange(width) + 0.5) / width)
    ramp[..., 1] = np.round(255 * (np.arange(height) + 0.5) / height)[:, None]
    black = process(Image.new("RGB", (width, height), (0, 0, 0)))
    white = process(Image.new("RGB", (width, height), (255, 255, 255)))
    ramps = process(Image.fromarray(ramp))
    return [
        _fit(*crop, width=width, height=height) for crop in zip(ramps, black, white, strict=True)
    ]


def _fit(
    ramp: np.ndarray, black: np.ndarray, white: np.ndarray, *, width: int, height: int
) -> Viewport:
    span = white - black
    inside = np.abs(span).min(axis=0) > 0.5 * np.abs(span).max()
    level = (ramp - black) / np.where(inside, span, 1.0)
    rows, columns = np.nonzero(inside)
    x = _line(columns, level[0][inside]) if len(columns) else (1.0, 0.0)
    y = _line(rows, level[1][inside]) if len(rows) else (1.0, 0.0)
    crop_height, crop_width = inside.shape
    # Pixel i covers [i, i + 1): its centre is at i + 0.5, and the line was fitted through i.
    left, right = ((x[1] + x[0] * (edge - 0.5)) * width for edge in (0, crop_width))
    top, bottom = ((y[1] + y[0] * (edge - 0.5)) * height for edge in (0, crop_height))
    return Viewport(float(left), float(top), float(right), float(bottom))


def _line(places: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of the least-squares line."""
    mean = places.mean()
    spread = ((places - mean) ** 2).sum()
    slope = ((places - mean) * (values - values.mean())).sum() / max(spread, 1e-12)
    return float(slope), float(values.mean() - slope * mean)
