"""`reduce_tokens`: put a method into a model for the length of a `with` block."""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from costmodel.methods import Method, get_method
from costmodel.methods.fits import RELEASED
from costmodel.methods.registry import MODULES, outside
from hardware_specs.errors import InvalidInputError, UnsupportedError
from token_reduction.apply.anatomy import Parts, dissect
from token_reduction.apply.grouping import checked_grouping
from token_reduction.apply.inside_llm import LayerReduction, Policy
from token_reduction.apply.patching import Patches
from token_reduction.apply.places import Host
from token_reduction.apply.record import ReductionRecord
from token_reduction.tokens.checks import raise_deferred

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import nn


_active: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


@contextmanager
def reduce_tokens(
    model: nn.Module,
    method: Method | str,
    *,
    trace: bool = False,
    frames: int | None = None,
    crops: int | Sequence[int] | None = None,
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
        frames: of each clip, for families that take a clip's frames as so many images (InternVL,
            SmolVLM): every so many images are one clip then, and without it each is an image.
        crops: of every image, or of each alike, for families that cut an image into tiles and write each
            into the prompt by itself (InternVL, Idefics3, SmolVLM, Gemma 3), the whole image among them.
            Without it the prompt tells, as the family's processor lays it out; Gemma 3's does not, and each
            crop is an image then.

    Yields:
        The record of the last reduction, filled in by the first forward.

    Raises:
        UnknownMethodError: no such method.
        UnsupportedError: the method cannot work on this model, or can only be priced; says why. Some
            reasons show only when the model runs, such as a static cache.
        InvalidInputError: the model is inside such a block already, or layers it does not have; frames or
            crops for a family whose call says itself what is a clip or an image; at the end of the block, NaN
            or infinity in what a method looked at on an accelerator.
    """
    request = get_method(method) if isinstance(method, str) else method
    stages = request.info.stages
    plugs = [plug_of(stage.name) for stage in stages or (request,)]
    for stage in stages or (request,):
        if stage.variant == RELEASED and stage.info.released is not None:
            raise UnsupportedError(
                f"{stage.name}'s variant released is the price of the authors' program and is not run "
                "here; leave variant out for the same tokens"
            )
    parts = dissect(model)
    grouping = checked_grouping(parts.family, frames, crops)
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
        if request.keeps_everything and not request.info.samples:
            LayerReduction(parts, record, Policy()).attach(patches)
        elif stages:
            _attach_stages(Host(request, parts, patches, record, trace, grouping), plugs)
        else:
            plugs[0](Host(request, parts, patches, record, trace, grouping))
        yield record
    finally:
        patches.undo()
        del _active[model]
    # On an accelerator nothing waited for the checks of the methods' inputs; here one may.
    raise_deferred()


def _attach_stages(host: Host, plugs: list[Callable[[Host], None]]) -> None:
    """Put two methods into a model, the second on what the first leaves."""
    stages = host.method.info.stages
    records = tuple(ReductionRecord(stage) for stage in stages)
    for stage, record, plug in zip(stages, records, plugs, strict=True):
        if not stage.keeps_everything or stage.info.samples:
            plug(replace(host, method=stage, record=record))
        else:
            before = host.shortened[-1] if host.shortened else None
            LayerReduction(host.parts, record, Policy(), before).attach(host.patches)
    host.record.stages = records
    host.patches.always_after(host.parts.base, host.record.gather_stages)


def plug_of(name: str) -> Callable[[Host], None]:
    """Return what puts the method called `name` into a model.

    Raises:
        UnknownMethodError: no such method.
        UnsupportedError: a method from outside that was registered without one.
    """
    found = outside(name)
    plug = f"token_reduction.{MODULES[name]}" if found is None else found.plug
    if plug is None:
        raise UnsupportedError(
            f"{name} can be priced but not run: it was registered without a plug; give "
            "register_method(..., plug=...) the function that puts it into a model"
        )
    return import_module(plug).plug if isinstance(plug, str) else plug


def _refuse_labels(parts: Parts, method: Method, patches: Patches) -> None:
    """A loss over labels of the full length would not fit the shorter logits."""

    def check(_module: Any, _args: Any, kwargs: Any) -> None:
        if kwargs.get("labels") is not None:
            raise UnsupportedError(
                f"under {method.name} the sequence is shorter than the labels; "
                "compute the loss from the logits"
            )

    patches.before(parts.model, check)
