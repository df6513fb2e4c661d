"""Checks that a method fits a model and a request, before anything is priced."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.methods.keep import first, greatest, of_rows, some
from costmodel.methods.plan import MethodInput, MethodPlan, before_layers
from costmodel.methods.token_lists import VISION_PLACES, check_llm_layer, is_clip, vision_parts
from hardware_specs.errors import InvalidInputError, UnsupportedError
from hardware_specs.showing import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from costmodel.methods.info import MethodInfo
    from costmodel.quantities import Num

#: The variant that prices the authors' program.
RELEASED = "released"
_WHERE = {
    "after-vision": "between vision tower and projector",
    "after-projector": "after the projector",
    "before-vision": "before the vision tower",
    "vision-layers": "inside the vision tower",
    "llm-layer": "in every language-model layer",
}
#: Places where the tower itself sees fewer patches.
_TOWER = ("before-vision", "vision-layers")
#: Places where all tokens of a prompt are seen together.
_LANGUAGE = ("llm-layer", "decode")


def checked_plan(info: MethodInfo, given: MethodInput) -> MethodPlan:
    """Return the token schedule and the method's own ops.

    `keep=1.0` leaves the model untouched, as `reduce_tokens` does (methods that draw samples all the same,
    such as ATS, apart): no schedule, no own cost.

    Raises:
        InvalidInputError: a keep or layer the method does not take.
        UnsupportedError: a model the method does not fit; says why.
    """
    vision_parts(info.name, given.model)
    _check_layer(info, given)
    if isinstance(given.keep, float) and given.keep == 1.0 and not info.samples:
        untouched = {"method": "keep=1.0: untouched"}
        plan = before_layers(given, given.visual_tokens, (), untouched)
        return plan._replace(parts=given.parts)
    # Before the language model images do not see each other.
    if given.parts and not (
        info.place in _LANGUAGE or info.second_place or info.stages or given.layer
    ):
        return _size_by_size(info, given)
    # The methods of a stack are asked for their own plans.
    if not info.stages:
        check_fits(info, given)
        _check_start(info, given)
    check_takes(info, given.keep, given.options)
    if given.keep is None:
        keep = info.default_keep if info.expected_keep is None else info.expected_keep
        given = given._replace(keep=keep)
    if given.layer is None:
        given = given._replace(layer=info.default_layer)
    plan = _scheduled(info, given)
    arrays = isinstance(given.visual_tokens, np.ndarray) or isinstance(given.keep, np.ndarray)
    by_crop = info.place in VISION_PLACES or info.by_crop
    # Reduced crops are not cut to the image's shape, and a merged or learned token may come on top of each.
    most = greatest(given.visual_tokens, given.projected_tokens) + given.crops
    _check_plan(info.name, plan, most if by_crop else given.visual_tokens, arrays)
    left = plan.llm_spans[0].tokens
    if some(more := left > given.visual_tokens):
        said = (
            f"{first(left, more):g} visual tokens are left of {first(given.visual_tokens, more):g}"
        )
        warning = f"{info.name}: {said}: reduced crops are joined whole; give a smaller keep"
        plan = plan._replace(warnings=(*plan.warnings, warning))
    return plan


def _size_by_size(info: MethodInfo, given: MethodInput) -> MethodPlan:
    """Return the plan for images of several sizes: that of each size, added up."""
    plans = [
        checked_plan(
            info,
            given._replace(
                visual_tokens=given.visual_tokens * 0 + part.tokens, images=part.images,
                projected_tokens=part.projected_tokens, crops=part.crops, seen=part.seen, parts=(),
                unit_tokens=part.tokens // part.images,
            ),
        )
        for part in given.parts
    ]  # fmt: skip
    whole = plans[0]
    for plan in plans[1:]:
        whole = whole.beside(plan)
    parts = (
        part._replace(tokens=plan.llm_spans[0].tokens, projected_tokens=plan.projected_tokens)
        for part, plan in zip(given.parts, plans, strict=True)
    )
    return whole._replace(parts=tuple(parts))


def check_takes(info: MethodInfo, keep: Any, options: Mapping[str, object]) -> None:
    """Raise unless a keep, or an array of counts, is of the kind a method takes; 1.0 and None always are.

    Beside an option that says itself how many tokens are left, a keep is refused.

    Raises:
        InvalidInputError: it is not; says what the method takes.
    """
    if keep is None or (isinstance(keep, float) and keep == 1.0):
        return
    if info.keep_kind == "none":
        raise InvalidInputError(
            f"{info.name} takes no keep ({info.keep_meaning}); "
            "1.0 alone is accepted, for the untouched model"
        )
    if info.keep_kind == "ratio" and not isinstance(keep, float):
        raise InvalidInputError(
            f"{info.name}'s keep is a ratio in (0, 1], {info.keep_meaning}; given {np.max(keep):g}"
        )
    if info.keep_choices and some(
        other := np.isin(np.round(keep, 6), info.keep_choices, invert=True)
    ):
        own = "".join(f", or give {option.name}=" for option in info.options if option.for_keep)
        raise InvalidInputError(
            f"{info.name} is defined for keep in {', '.join(map(str, info.keep_choices))}; "
            f"given {first(keep, other):g}: take one of these{own}"
        )
    for option in info.options:
        if option.for_keep and options[option.name] != option.default:
            raise InvalidInputError(
                f"{info.name}: the option {option.name} decides how many tokens are left, and so does "
                f"keep={np.max(keep):g}; give one of the two"
            )


def _scheduled(info: MethodInfo, given: MethodInput) -> MethodPlan:
    """The plan of a variant; as released, the program's tokens with the ops of the authors' own code."""
    if given.variant != RELEASED or info.released is None:
        return info.schedule(given)
    given = given._replace(variant=info.variants[0])
    note = "own work counted from the steps of the authors' program, launches of its loops included"
    plan = info.schedule(given)
    return plan._replace(ops=tuple(info.released(given)), notes={**plan.notes, RELEASED: note})


def _check_start(info: MethodInfo, given: MethodInput) -> None:
    """Raise where the method takes whole crops, and the visual tokens are those of a part."""
    by_crop = info.place in VISION_PLACES or info.by_crop
    if not (info.place in _TOWER or (by_crop and given.model.anyres is not None)):
        return
    unit = given.unit_tokens
    part = (unit > 0) & (given.visual_tokens % greatest(unit, 1) != 0)
    if some(part):
        there, whole = first(given.visual_tokens, part), first(unit, part)
        error = InvalidInputError(
            f"{info.name} acts on whole crops {_WHERE[info.place]}, so it cannot start from {there:g} "
            f"visual tokens of {given.model.name}: one image or clip has {whole:g}. Leave visual_tokens "
            f"out, give a multiple of {whole:g} or image_size; fastv and vtw start from any count"
        )
        raise of_rows(error, part)


def _check_plan(name: str, plan: MethodPlan, most: Num, arrays: bool) -> None:
    """Raise unless every count is finite and not negative, and no layer sees more than `most` visual tokens.

    Raises:
        InvalidInputError: more tokens in a layer.
        UnsupportedError: counts that no model can have: a mistake of the method.
    """
    for span in plan.llm_spans:
        for tokens in span[1:4]:
            if tokens is None:
                continue
            more = tokens > most
            if some(more):
                error = InvalidInputError(
                    f"{name} would leave {first(tokens, more):g} of {first(most, more):g} visual "
                    "tokens, and a reduction adds none; give a smaller keep"
                )
                raise of_rows(error, more)
    spans = (*plan.llm_spans, *(plan.vision_spans or ()), *(plan.decode_spans or ()))
    lengths = [tokens for span in spans for tokens in span[1:5] if tokens is not None]
    sound = _sound_arrays if arrays else _sound
    wrong = next((op.name for op in plan.ops if not sound(op[3:13])), None)
    if wrong is not None or not sound((plan.projected_tokens, *lengths)):
        raise UnsupportedError(
            f"{name}: the {'token counts are' if wrong is None else f'work of {wrong} is'} negative or no "
            "number, so the request cannot be priced"
        )


def _sound(numbers: Sequence[Any]) -> bool:
    """Whether numbers are finite and not negative."""
    return bool(min(numbers) >= 0 and sum(numbers) < inf)


def _sound_arrays(arrays: Sequence[Any]) -> bool:
    """Whether arrays, numbers among them, are finite and not negative."""
    return all(
        bool(each.min() >= 0 and each.max() < inf)
        if isinstance(each, np.ndarray)
        else 0 <= each < inf
        for each in arrays
    )


def check_fits(info: MethodInfo, given: MethodInput) -> None:
    """Raise unless the method fits the request's model.

    Raises:
        UnsupportedError: it does not; says why.
    """
    model, tower = given.model, given.tower
    merged = model.patches_per_token
    behind = info.on_merged and tower.native
    if merged > 1 and not behind and (info.place in VISION_PLACES or _by_patch(info)):
        where = _WHERE[info.place] if info.place in VISION_PLACES else "by the tower's own patches"
        raise UnsupportedError(
            f"{info.name} acts {where}, and {model.name} merges {merged} patches of a grid into one "
            "token behind it, which a choice among patches leaves none of; divprune acts on the "
            "merged tokens, fastv, pyramiddrop, dart, sparsevlm and vtw in the language model"
        )
    if info.by_crop and tower.native and not behind:
        raise UnsupportedError(
            f"{info.name} takes crops of one size, and images of {model.name} keep their own; divprune "
            "acts on the tokens of each image, fastv, pyramiddrop, dart, sparsevlm and vtw in the "
            "language model"
        )
    if info.needs_class_token and not tower.has_cls and not behind:
        raise UnsupportedError(
            f"{info.name} ranks patches by the class token's attention, but the {tower.family} "
            f"tower of {model.name} has no class token; use one that does without, such as "
            "divprune, fastv or vtw"
        )
    _check_together(info, given)
    _check_clip(info, given, tower.patches)


def _check_layer(info: MethodInfo, given: MethodInput) -> None:
    """Raise where a layer is given to a method that takes none, or one beyond the model's layers."""
    if given.layer is None:
        return
    if not info.takes_layer:
        raise refused_layer(info, given.variant, given.layer)
    check_llm_layer(info.name, given.layer, given.model.text.num_layers)


def _by_patch(info: MethodInfo) -> bool:
    """Whether of what the method takes of the tower there is one for every patch."""
    return info.needs_class_token or any(need.startswith("clip_") for need in info.needs)


def _check_together(info: MethodInfo, given: MethodInput) -> None:
    """Raise where text stands between visual tokens that the method takes together."""
    # A draw before layer 0 looks at no attention.
    if not info.together or not given.tower.native or given.layer == 0:
        return
    timed = getattr(given.model.geometry, "timestamps", False)
    pieces = greatest(given.images, given.crops) if timed else given.images
    if some(pieces > 1):
        raise UnsupportedError(
            f"{info.name} takes visual tokens that stand together, and {given.model.name} has text between "
            f"{first(pieces, pieces > 1):g} images or pairs of frames; give one image, or take fastv, v2drop "
            "or vtw"
        )


def refused_layer(info: MethodInfo, variant: str, layer: object) -> InvalidInputError:
    """Return the error for a layer that was given to a method, or a variant of one, that takes none."""
    where = _WHERE[info.place]
    if any(option.name == "layers" for option in info.options):
        where = "at fixed layers, see its options"
    elif info.place == "llm-layer" and variant in info.variants[1:]:
        return InvalidInputError(
            f"{info.name}'s variant {variant} takes no layer, and layer={shown(layer)} was given: it acts "
            "before layer 0; leave layer or variant out"
        )
    return InvalidInputError(f"{info.name} takes no layer: it acts {where}; leave layer out")


def _check_clip(info: MethodInfo, given: MethodInput, patches: int) -> None:
    """Raise where a model pools every frame on its grid, and the method needs or breaks that grid."""
    rule = given.model.video
    # Towers of native resolution pool nothing behind the projector.
    if rule is None or given.tower.native or not some(is_clip(given)):
        return
    pooled_before = rule.projected_per_frame < patches
    pooled_after = rule.tokens_per_frame < rule.projected_per_frame
    by_crop = info.place in VISION_PLACES or info.by_crop
    if pooled_before and (info.place in _TOWER or _by_patch(info)):
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
