"""`reduce_tokens`: put a method into a model for the length of a `with` block."""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import InvalidInputError, UnsupportedError
from token_reduction.apply import crop_attention, crop_methods, question
from token_reduction.apply.anatomy import Parts, dissect
from token_reduction.apply.before_llm import PromptReduction
from token_reduction.apply.crops import Crops
from token_reduction.apply.fitprune_layers import FittedDeletion
from token_reduction.apply.inside_llm import LayerReduction
from token_reduction.apply.inside_tower import TowerReduction
from token_reduction.apply.item_methods import ITEM_METHODS, item_function
from token_reduction.apply.llm_methods import Attended, Diverse, KeepEverything, Withdraw
from token_reduction.apply.llm_progressive import Pivots, PyramidStages, RatedByText
from token_reduction.apply.patching import Patches
from token_reduction.apply.record import ReductionRecord
from token_reduction.apply.tower_merging import CrossGuided, TokenMerging
from token_reduction.apply.tower_pruning import Reorganise, Sample
from token_reduction.checks import raise_deferred
from token_reduction.registry import Method, get_method

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from token_reduction.apply.tower_layer import LayerStep

STEPS: dict[str, type[LayerStep]] = {
    "tome": TokenMerging,
    "evit": Reorganise,
    "ats": Sample,
    "crossget": CrossGuided,
}

POLICIES: dict[str, Callable[[Method, Parts], KeepEverything]] = {
    "fastv": Attended,
    "vtw": Withdraw,
    "divprune": Diverse,
    "fitprune": FittedDeletion,
    "pyramiddrop": PyramidStages,
    "dart": Pivots,
    "sparsevlm": RatedByText,
}

_active: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


@contextmanager
def reduce_tokens(
    model: nn.Module, method: Method | str, *, trace: bool = False
) -> Iterator[ReductionRecord]:
    """Run a model with fewer visual tokens inside this block, and leave it as it was.

    Forward and `generate` work as without it: same arguments, and the same kind of output for a
    shorter sequence. The cache, positions and masks follow the method's definition. A method with
    keep=1.0 leaves the model untouched.

    Args:
        model: a `transformers` model of one of the families in `apply.anatomy`.
        method: from `get_method`, or a method's name for its defaults.
        trace: also follow every patch through the merges inside the vision tower (some index
            operations more), for overlays.

    Yields:
        The record of the last reduction, filled in by the first forward.

    Raises:
        UnknownMethodError: no such method.
        UnsupportedError: the method cannot work on this model; says why. Some reasons show only
            when the model runs, such as a static cache.
        InvalidInputError: the model is inside such a block already, or layers it does not have; at
            the end of the block, NaN or infinity in what a method looked at on an accelerator.
    """
    request = get_method(method) if isinstance(method, str) else method
    parts = dissect(model)
    if model in _active:
        raise InvalidInputError(
            f"this model is inside reduce_tokens with {_active[model]} already, and one reduction "
            f"at a time is defined; leave that block before entering {request.name}"
        )
    record = ReductionRecord(request)
    patches = Patches()
    _active[model] = request.name
    try:
        _refuse_labels(parts, request, patches)
        _install(parts, request, record, patches, trace)
        yield record
    finally:
        patches.undo()
        del _active[model]
    # On an accelerator nothing waited for the checks of the methods' inputs; here one may.
    raise_deferred()


def _install(
    parts: Parts, method: Method, record: ReductionRecord, patches: Patches, trace: bool
) -> None:
    # ATS draws as many samples as there are tokens by default, and keeps fewer all the same.
    if method.keeps_everything and method.name != "ats":
        LayerReduction(parts, record, KeepEverything()).attach(patches)
    elif _is_inside(method):
        parts.require_decoder_layers(method.name)
        policy = POLICIES[method.name](method, parts)
        LayerReduction(parts, record, policy).attach(patches)
    elif method.name in ITEM_METHODS:
        PromptReduction(parts, record, None, item_function(parts, method, patches)).attach(patches)
    else:
        PromptReduction(parts, record, _crops(parts, method, record, patches, trace), None).attach(
            patches
        )


def _crops(
    parts: Parts, method: Method, record: ReductionRecord, patches: Patches, trace: bool
) -> Crops:
    """Return what reduces crop by crop, with everything but the projector's hooks attached."""
    name = method.name
    if name in STEPS:
        step = STEPS[name](method, record, trace=trace)
        tower = TowerReduction(parts, record, step, trace)
        tower.attach(patches)
        return Crops(parts, record, None, before_projector=False, tower_counts=tower.counts)
    before = name in crop_methods.BEFORE_PROJECTOR + crop_attention.BEFORE_PROJECTOR
    if name in crop_methods.BEFORE_PROJECTOR + crop_methods.AFTER_PROJECTOR:
        return Crops(parts, record, crop_methods.crop_function(parts, method, patches), before)
    if name in crop_attention.BEFORE_PROJECTOR + crop_attention.AFTER_PROJECTOR:
        function = crop_attention.attention_function(parts, method, patches)
        brings_class = name in crop_attention.WITH_CLASS_TOKEN
        return Crops(parts, record, function, before, brings_class)
    if name in question.AFTER_PROJECTOR:
        function = question.question_function(parts, method, record, patches)
        return Crops(parts, record, function, before)
    raise UnsupportedError(
        f"{name} cannot be put into {type(parts.model).__name__}: nobody has said where it acts"
    )


def _is_inside(method: Method) -> bool:
    """Whether a method acts between layers; DivPrune at layer 0 acts before them."""
    if method.place != "llm-layer" or (method.name in ITEM_METHODS and method.layer == 0):
        return False
    return method.name in POLICIES


def _refuse_labels(parts: Parts, method: Method, patches: Patches) -> None:
    """A loss over labels of the full length would not fit the shorter logits."""

    def check(_module: Any, _args: Any, kwargs: Any) -> None:
        if kwargs.get("labels") is not None:
            raise UnsupportedError(
                f"under {method.name} the sequence is shorter than the labels; "
                "compute the loss from the logits"
            )

    patches.before(parts.model, check)
