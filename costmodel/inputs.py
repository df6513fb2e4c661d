"""Checks of what people pass in: one clear error each, before anything is computed."""

from __future__ import annotations

from functools import lru_cache
from numbers import Integral
from typing import TYPE_CHECKING

from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from costmodel.models import ModelConfig, VisualInput

#: Beyond this a count is taken for a slip of the keyboard, not for a prompt.
MOST_TOKENS = 100_000_000


def check_count(name: str, value: object, least: int) -> None:
    """Raise unless `value` is a whole number in [`least`, `MOST_TOKENS`].

    >>> check_count("batch_size", 0, 1)
    Traceback (most recent call last):
    hardware_specs.errors.InvalidInputError: batch_size must be a whole number from 1 to \
100000000, not 0
    """
    if type(value) is int and least <= value <= MOST_TOKENS:
        return
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if whole and least <= int(value) <= MOST_TOKENS:  # type: ignore[call-overload]
        return
    raise InvalidInputError(
        f"{name} must be a whole number from {least} to {MOST_TOKENS}, not {value!r}"
    )


def visual_units(
    model: ModelConfig, image_size: tuple[int, int] | None, frames: int | None
) -> tuple[VisualInput, VisualInput]:
    """Return what one image or clip gives as papers count it, and as `transformers` runs it.

    The second has a few tokens more where newline or class tokens are carried along; only beyond it
    does a count stand for several images.

    Args:
        model: a model with a vision tower.
        image_size: (height, width) in pixels, or None.
        frames: frames of a video, or None.
    """
    if image_size is None and frames is None:
        return _default_units(model)
    if isinstance(frames, Integral) and not isinstance(frames, bool):
        frames = int(frames)  # numpy's integers overflow
    return (
        model.visual_input(image_size=image_size, frames=frames),
        model.visual_input(image_size=image_size, frames=frames, count="transformers"),
    )


@lru_cache(maxsize=256)
def _default_units(model: ModelConfig) -> tuple[VisualInput, VisualInput]:
    """Any-resolution models try dozens of grids to find their largest."""
    return model.visual_input(), model.visual_input(count="transformers")


def resolve_visual(
    model: ModelConfig,
    visual_tokens: int | None,
    image_size: tuple[int, int] | None,
    frames: int | None,
    text_tokens: int,
    output_tokens: int,
    warnings: list[str],
) -> tuple[int, int, int]:
    """Return visual tokens, tokens through the projector, and crops, per sample.

    A count above what one image (or clip) gives stands for several of them.

    Args:
        model: the model.
        visual_tokens: the count asked for, or None for the model's own.
        image_size: (height, width) in pixels, or None.
        frames: frames of a video, or None.
        text_tokens: text tokens per sample.
        output_tokens: decode steps.
        warnings: receives what the caller should know.

    Raises:
        InvalidInputError: a count that is none, or a prompt without a token.

    >>> from costmodel import load_model
    >>> resolve_visual(load_model("llava-1.5-7b"), 1152, None, None, 40, 0, [])  # two images
    (1152, 1152, 2)
    """
    if visual_tokens is not None:
        check_count("visual_tokens", visual_tokens, 0)
        visual_tokens = int(visual_tokens)
    if model.vision is None:
        if image_size is not None or frames is not None:
            raise InvalidInputError(
                f"{model.name} has no vision tower: image_size and frames mean nothing to it"
            )
        tokens, projected, crops = visual_tokens or 0, 0, 0
    else:
        given, whole = visual_units(model, image_size, frames)
        tokens = given.tokens if visual_tokens is None else visual_tokens
        unit = given if tokens <= given.tokens else whole
        images = -(-tokens // unit.tokens)
        projected, crops = images * unit.projected_tokens, images * unit.crops
    length = tokens + text_tokens
    if length == 0:
        raise InvalidInputError("visual_tokens and text_tokens are both 0: there is no prompt")
    most = model.text.max_positions
    if most and length + output_tokens > most:
        warnings.append(
            f"{length + output_tokens} positions are beyond the {most} that {model.name} was "
            "trained for; the cost holds, the answer may not"
        )
    return tokens, projected, crops
