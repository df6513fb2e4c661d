"""What a method asks of a model, checked before anything is priced."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.methods.plan import MethodPlan
from costmodel.methods.token_lists import VISION_PLACES, check_llm_layer, is_clip, vision_parts
from costmodel.schedule import LayerSpan
from hardware_specs.errors import InvalidInputError, UnsupportedError

if TYPE_CHECKING:
    from costmodel.methods.info import MethodInfo
    from costmodel.methods.plan import MethodInput

_WHERE = {
    "after-vision": "between vision tower and projector",
    "after-projector": "after the projector",
    "vision-layers": "inside the vision tower",
    "llm-layer": "in every language-model layer",
}


def checked_plan(info: MethodInfo, given: MethodInput) -> MethodPlan:
    """Return the token schedule and the method's own ops.

    `keep=1.0` leaves the model untouched, as `reduce_tokens` does (methods that draw samples all the same,
    such as ATS, apart): no schedule, no own cost.

    Raises:
        InvalidInputError: a keep or layer the method does not take.
        UnsupportedError: a model the method does not fit; says why.
    """
    check_fits(info, given)
    if isinstance(given.keep, float) and given.keep == 1.0 and not info.samples:
        span = LayerSpan(given.model.text.num_layers, given.visual_tokens)
        return MethodPlan((span,), given.projected_tokens, notes={"method": "keep=1.0: untouched"})
    return info.schedule(given)


def check_fits(info: MethodInfo, given: MethodInput) -> None:
    """Raise unless the method takes the request's layer and fits its model.

    Raises:
        InvalidInputError: a layer for a method that has none, or one beyond the model's layers.
        UnsupportedError: a model the method does not fit; says why.
    """
    model = given.model
    tower, _ = vision_parts(info.name, model)
    if given.layer is not None and not info.takes_layer:
        raise InvalidInputError(
            f"{info.name} takes no layer: it acts {_WHERE[info.place]}; leave layer out"
        )
    if given.layer is not None:
        check_llm_layer(info.name, given.layer, model.text.num_layers)
    if info.needs_class_token and not tower.has_cls:
        raise UnsupportedError(
            f"{info.name} ranks patches by the class token's attention, but the {tower.family} "
            f"tower of {model.name} has no class token; use one that does without, such as "
            "divprune, fastv or vtw"
        )
    _check_clip(info, given, tower.patches)


def _check_clip(info: MethodInfo, given: MethodInput, patches: int) -> None:
    """Raise where a model pools every frame on its grid, and the method needs or breaks that grid."""
    rule = given.model.video
    if rule is None or not is_clip(given):
        return
    pooled_before = rule.projected_per_frame < patches
    pooled_after = rule.tokens_per_frame < rule.projected_per_frame
    by_crop = info.place in VISION_PLACES or info.by_crop
    if pooled_before and (info.place == "vision-layers" or info.needs_class_token):
        raise UnsupportedError(
            f"{info.name} works on a crop's {patches} patches, but {given.model.name} pools every "
            f"frame to {rule.projected_per_frame} before its projector; use a method that acts on "
            "those (divprune, spatial) or in the language model (fastv, vtw)"
        )
    if pooled_after and by_crop:
        raise UnsupportedError(
            f"{info.name} leaves no grid of patches, and {given.model.name} pools every video "
            "frame on its grid; divprune, fastv or vtw work on its videos"
        )
