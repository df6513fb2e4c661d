"""The token lists a method works on: crops before the projector, images or clips behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from costmodel.methods.keep import first, greatest, least, of_rows, some
from costmodel.models.families import get_family
from hardware_specs.errors import InvalidInputError, UnsupportedError

if TYPE_CHECKING:
    from costmodel.methods.plan import MethodInput
    from costmodel.models import ModelConfig, ProjectorConfig, VisionConfig
    from costmodel.quantities import Num

#: Places inside the vision side, before the projector.
VISION_PLACES = ("before-vision", "after-vision", "vision-layers")


class TokenLists(NamedTuple):
    """What a method before the projector works on.

    Attributes:
        images: batch x crops: how many token lists.
        patches: tokens per list, the class token apart.
        runs: 1 where there is anything to reduce, else 0.
    """

    images: Num
    patches: Num
    runs: Num


class Items(NamedTuple):
    """What a method after the projector works on: images or clips, tiles or frames joined.

    Attributes:
        per_sample: images or clips of one sample.
        lists: batch x items: how many token lists.
        tokens: tokens per list.
        runs: 1 where there is anything to reduce, else 0.
    """

    per_sample: Num
    lists: Num
    tokens: Num
    runs: Num


def is_clip(given: MethodInput) -> Any:
    """Whether a scenario's tokens are those of a clip: so many per frame, and no tiles."""
    rule = given.model.video
    if rule is None or (rule.as_tiles and not given.framed):
        return False
    clip = given.crops * rule.tokens_per_frame + rule.tail_tokens
    # Two images of one crop have as many tokens as a clip of two frames.
    joined = (given.crops == 1) | (given.images < given.crops)
    return (given.crops > 0) & joined & (given.visual_tokens == clip)


def vision_parts(name: str, model: ModelConfig) -> tuple[VisionConfig, ProjectorConfig]:
    """Return the vision tower and the projector.

    Raises:
        UnsupportedError: the model has none.
    """
    if model.vision is None or model.projector is None:
        raise UnsupportedError(
            f"{name} reduces visual tokens, but {model.name} has no vision tower; choose a "
            "multimodal model"
        )
    return model.vision, model.projector


def check_llm_layer(name: str, layer: object, layers: int) -> None:
    """Raise unless `layer` is one of the language model's.

    >>> check_llm_layer("fastv", 40, 32)
    Traceback (most recent call last):
    hardware_specs.errors.InvalidInputError: fastv at layer 40: the language model has layers 0 to 31
    """
    if isinstance(layer, bool) or not isinstance(layer, (int, np.integer)):
        raise InvalidInputError(f"{name}: layer must be a whole number, not {layer!r}")
    if not 0 <= layer < layers:
        raise InvalidInputError(
            f"{name} at layer {layer}: the language model has layers 0 to {layers - 1}"
        )


def crops_of(given: MethodInput) -> TokenLists:
    """Return the token lists between vision tower and projector.

    They are the tower's features, one list per crop. Where a model hands every feature on (no tiles
    to cut borders from), `visual_tokens` below the model's own count means shorter lists.

    Raises:
        InvalidInputError: visual tokens that are not as many for every crop.
    """
    crops = given.crops
    tokens = given.projected_tokens
    if given.model.anyres is None:
        tokens = least(tokens, given.visual_tokens)
    runs = (tokens > 0) * 1
    patches = _each(tokens, greatest(crops, 1), "crops or frames")
    return TokenLists(given.batch_size * crops, patches, runs)


def items_of(given: MethodInput) -> Items:
    """Return the token lists after the projector, one per image or clip.

    Raises:
        InvalidInputError: visual tokens that are not as many for every image.
    """
    per_sample = greatest(given.images, 1)
    tokens = _each(given.visual_tokens, per_sample, "images")
    runs = (given.visual_tokens > 0) * 1
    return Items(per_sample, given.batch_size * per_sample, tokens, runs)


def pieces_of(given: MethodInput) -> tuple[Items, ...]:
    """Return what stands by itself in a prompt: images and clips, lone tiles and frames.

    Where the time is written before each pair of a clip's frames, the tokens of every pair are a run, and so
    are those of a frame that is handed over as an image, and of a tile that text stands around; what a method
    before left of an image or clip is one piece. Pieces of one length each.
    """
    rule, alone = given.model.video, get_family(given.model.model_type).has_lone_tiles
    whole = some(given.unit_tokens > 0)
    if whole and (alone or (given.framed and rule and rule.as_tiles)):
        given = given._replace(images=greatest(given.crops, 1), parts=())
    if given.parts:
        of_sizes = ((part.images, part.tokens // part.images) for part in given.parts)
        b = given.batch_size
        return tuple(Items(many, b * many, each, (each > 0) * 1) for many, each in of_sizes)
    items = items_of(given)
    if not (whole and getattr(given.model.geometry, "timestamps", False)):
        return (items,)
    pairs = greatest(given.crops // items.per_sample, 1)
    return (
        Items(items.per_sample * pairs, items.lists * pairs, items.tokens // pairs, items.runs),
    )


def _each(tokens: Num, lists: Num, what: str) -> Num:
    """Return the tokens of one of some lists, which all have as many."""
    uneven = tokens % lists != 0
    if some(uneven):
        total, parts = first(tokens, uneven), first(lists, uneven)
        below = total // parts * parts
        nearest = f"{below:g} or {below + parts:g}" if below else f"{parts:g}"
        error = InvalidInputError(
            f"{total:g} visual tokens are not as many for each of {parts:g} {what}; give a multiple "
            f"of {parts:g}, such as {nearest}"
        )
        raise of_rows(error, uneven)
    return tokens // lists
