"""`reduce_tokens`: put a method into a model for the length of a `with` block."""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import InvalidInputError, UnsupportedError
from token_reduction.apply.anatomy import Parts, dissect
from token_reduction.apply.before_llm import PromptReduction
from token_reduction.apply.crop_methods import AFTER_PROJECTOR, BEFORE_PROJECTOR, crop_function
from token_reduction.apply.crops import Crops
from token_reduction.apply.fitprune_layers import FittedDeletion
from token_reduction.apply.inside_llm import LayerReduction
from token_reduction.apply.inside_tower import TowerReduction
from token_reduction.apply.item_methods import ITEM_METHODS, item_function
from token_reduction.apply.llm_methods import KeepEverything, layer_policy
from token_reduction.apply.patching import Patches
from token_reduction.apply.record import ReductionRecord
from token_reduction.apply.tower_merging import CrossGuided, TokenMerging
from token_reduction.apply.tower_pruning import Reorganise, Sample
from token_reduction.registry import Method, get_method

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from token_reduction.apply.tower_layer import LayerStep

STEPS: dict[str, type[LayerStep]] = {
    "tome": TokenMerging,
    "evit": Reorganise,
    "ats": Sample,
    "crossget": CrossGuided,
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
        InvalidInputError: the model is inside such a block already, or layers it does not have.
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


def _install(
    parts: Parts, method: Method, record: ReductionRecord, patches: Patches, trace: bool
) -> None:
    # ATS draws as many samples as there are tokens by default, and keeps fewer all the same.
    if method.keeps_everything and method.name != "ats":
        LayerReduction(parts, record, KeepEverything()).attach(patches)
    elif method.place == "llm-layer" and not _is_before(method):
        parts.require_decoder_layers(method.name)
        if method.name == "fitprune":
            fitted = FittedDeletion(method)
            fitted.reduction = LayerReduction(parts, record, fitted)
            fitted.reduction.attach(patches)
        else:
            LayerReduction(parts, record, layer_policy(method, parts)).attach(patches)
    elif method.name in BEFORE_PROJECTOR + AFTER_PROJECTOR:
        crops = Crops(
            parts, record, crop_function(parts, method, patches), method.name in BEFORE_PROJECTOR
        )
        PromptReduction(parts, record, crops, None).attach(patches)
    elif method.name in ITEM_METHODS:
        PromptReduction(parts, record, None, item_function(method)).attach(patches)
    elif method.name in STEPS:
        step = STEPS[method.name](method, record, trace=trace)
        tower = TowerReduction(parts, record, step, trace)
        tower.attach(patches)
        crops = Crops(parts, record, None, before_projector=False, tower_counts=tower.counts)
        PromptReduction(parts, record, crops, None).attach(patches)
    else:
        raise UnsupportedError(f"{method.name} has no place in a model yet")


def _is_before(method: Method) -> bool:
    """Whether a layer was asked for that is the language model's input: DivPrune at layer 0."""
    return method.name in ITEM_METHODS and method.layer == 0


def _refuse_labels(parts: Parts, method: Method, patches: Patches) -> None:
    """A loss over labels of the full length would not fit the shorter logits."""

    def check(_module: Any, _args: Any, kwargs: Any) -> None:
        if kwargs.get("labels") is not None:
            raise UnsupportedError(
                f"under {method.name} the sequence is shorter than the labels; "
                "compute the loss from the logits"
            )

    patches.before(parts.model, check)
