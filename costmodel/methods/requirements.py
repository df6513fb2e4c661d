"""What a method asks of a model, checked before anything is priced; and where its tokens come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from costmodel.methods.counts import greatest, least
from hardware_specs.errors import InvalidInputError, UnsupportedError

if TYPE_CHECKING:
    from costmodel.methods.registry import MethodCost, MethodRequest
    from costmodel.models import ModelConfig, ProjectorConfig, VisionConfig
    from costmodel.quantities import Num

#: Places inside the vision side, before the projector.
VISION_PLACES = ("after-vision", "vision-layers")


class Crops(NamedTuple):
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
    """What a method after the projector works on.

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


def check_fits(cost: MethodCost, request: MethodRequest) -> None:
    """Raise unless the method takes the request's layer and fits its model.

    Raises:
        InvalidInputError: a layer for a method that has none, or one beyond the model's layers.
        UnsupportedError: a model the method does not fit; says why.
    """
    model = request.model
    tower, _ = vision_parts(cost.name, model)
    if request.layer is not None and not cost.takes_layer:
        raise InvalidInputError(
            f"{cost.name} takes no layer: it acts {_WHERE[cost.place]}; leave layer out"
        )
    if request.layer is not None:
        check_llm_layer(cost.name, request.layer, model.text.num_layers)
    if cost.needs_class_token and not tower.has_cls:
        raise UnsupportedError(
            f"{cost.name} ranks patches by the class token's attention, but the {tower.family} "
            f"tower of {model.name} has no class token; use one that does without, such as "
            "divprune, fastv or vtw"
        )
    _check_clip(cost, request, tower.patches)


def _check_clip(cost: MethodCost, request: MethodRequest, patches: int) -> None:
    """Raise where a model pools every frame on its grid, and the method needs or breaks that grid."""
    rule = request.model.video
    if rule is None or not is_clip(request):
        return
    pooled_before = rule.projected_per_frame < patches
    pooled_after = rule.tokens_per_frame < rule.projected_per_frame
    by_crop = cost.place in VISION_PLACES or cost.by_crop
    if pooled_before and (cost.place == "vision-layers" or cost.needs_class_token):
        raise UnsupportedError(
            f"{cost.name} works on a crop's {patches} patches, but {request.model.name} pools every "
            f"frame to {rule.projected_per_frame} before its projector; use a method that acts on "
            "those (divprune, spatial) or in the language model (fastv, vtw)"
        )
    if pooled_after and by_crop:
        raise UnsupportedError(
            f"{cost.name} leaves no grid of patches, and {request.model.name} pools every video "
            "frame on its grid; divprune, fastv or vtw work on its videos"
        )


def is_clip(request: MethodRequest) -> bool:
    """Whether the request's tokens are those of a clip: so many per frame, and no tiles."""
    rule = request.model.video
    if rule is None:
        return False
    clip = request.crops * rule.tokens_per_frame + rule.tail_tokens
    return bool(np.all(request.crops > 0) and np.all(request.visual_tokens == clip))


_WHERE = {
    "after-vision": "between vision tower and projector",
    "after-projector": "after the projector",
    "vision-layers": "inside the vision tower",
    "llm-layer": "in every language-model layer",
}


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


def crops_of(request: MethodRequest) -> Crops:
    """Return the token lists between vision tower and projector.

    They are the tower's features, one list per crop. Where a model hands every feature on (no tiles
    to cut borders from), `visual_tokens` below the model's own count means shorter lists.
    """
    crops = request.crops
    tokens = request.projected_tokens
    if request.model.anyres is None:
        tokens = least(tokens, request.visual_tokens)
    runs = (tokens > 0) * 1
    patches = tokens // greatest(crops, 1)
    return Crops(request.batch_size * crops, patches, runs)


def items_of(request: MethodRequest) -> Items:
    """Return the token lists after the projector, one per image or clip.

    A model without tiles or frames has as many images as crops; tiles or frames make one item.
    """
    model = request.model
    single = model.anyres is not None or model.video is not None
    per_sample = greatest(request.crops * (not single), 1)
    tokens = request.visual_tokens // per_sample
    runs = (request.visual_tokens > 0) * 1
    return Items(per_sample, request.batch_size * per_sample, tokens, runs)
