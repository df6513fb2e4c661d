"""The places in a model where a method's plug attaches: one function for each.

`plug(host)` in a method's module calls one of them with what the method does there:

    every crop, before or after the projector    reduce_crops(host, function on [c, n, w] and the tower)
    every whole image or video                   reduce_items(host, function on an `Item`)
    images of native resolution, before the tower   shrink_images(host, function on patches and grids)
    every video, frame by frame                  reduce_clips(host, function on [t, p, d])
                                                 reduce_clips_of(host, function on an `Item`)
    inside the vision tower                      reduce_in_tower(host, a `Step`)
    between the language model's layers          reduce_between_layers(host, a `Policy`'s class)

Probes of its own a plug attaches to `host.patches`, so that they are undone with everything else.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from token_reduction.apply.before_llm import PromptReduction
from token_reduction.apply.crops import Crops
from token_reduction.apply.grouping import Grouping
from token_reduction.apply.inside_llm import LayerReduction
from token_reduction.apply.inside_tower import TowerReduction
from token_reduction.apply.record import ReductionRecord
from token_reduction.apply.smaller import SmallerImages
from token_reduction.tokens.reduced import Reduced

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from costmodel.methods import Method
    from token_reduction.apply.anatomy import Parts, Tower
    from token_reduction.apply.crops import Item
    from token_reduction.apply.inside_llm import Policy
    from token_reduction.apply.inside_tower import Step
    from token_reduction.apply.patching import Patches


@dataclass(frozen=True, slots=True)
class Host:
    """The model that a method is put into.

    Attributes:
        method: what is asked for.
        parts: the model's parts.
        patches: collects hooks and replaced attributes, so that they can be undone.
        record: what the reduction did.
        trace: whether to follow every patch through the merges inside the vision tower.
        grouping: which crops make one image or clip.
        shortened: what shortens the prompt before the language model, once something does; of two
            methods that are stacked, the second finds the first one's here.
    """

    method: Method
    parts: Parts
    patches: Patches
    record: ReductionRecord
    trace: bool
    grouping: Grouping = field(default_factory=Grouping)
    shortened: list[PromptReduction] = field(default_factory=list)

    def in_two(self) -> tuple[Host, Host]:
        """Return the hosts of a method's two stages, each with a record of its own."""
        records = ReductionRecord(self.method), ReductionRecord(self.method)
        self.record.stages = records
        self.patches.always_after(self.parts.base, self.record.gather_stages)
        first, second = (replace(self, record=record) for record in records)
        return first, second

    def shorten(self, crops: Crops | None, function: Callable[[Item], Reduced] | None) -> None:
        """Shorten the prompt before the language model, by crops or by whole images and videos."""
        self.add(PromptReduction(self.parts, self.record, crops, function, self.grouping))

    def add(self, reduction: PromptReduction) -> None:
        """Put what shortens the prompt into the model."""
        reduction.attach(self.patches)
        self.shortened.append(reduction)


def reduce_crops(
    host: Host,
    function: Callable[[Tensor, Tower], Reduced | list[Reduced]],
    *,
    before_projector: bool,
    includes_class_token: bool = False,
) -> None:
    """Reduce the patches of all crops of a forward.

    Args:
        host: the model.
        function: from patches [c, n, w] and their tower to one result for all crops, or one for each.
        before_projector: whether it sees the tower's features or the projector's output.
        includes_class_token: whether its output holds the class token already.

    Raises:
        UnsupportedError: patches are merged behind the tower, or images have a size of their own.
    """
    if before_projector:
        host.parts.require_a_token_per_patch(host.method.name)
    host.parts.require_crops(host.method.name)
    crops = Crops(host.parts, host.record, function, before_projector, includes_class_token)
    host.shorten(crops, None)


def reduce_items(host: Host, function: Callable[[Item], Reduced]) -> None:
    """Reduce each whole image or video after the projector, tiles and newlines joined."""
    host.shorten(None, function)


def shrink_images(host: Host, function: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
    """Give a tower of native resolution smaller images, whose places are then their own.

    Args:
        host: the model.
        function: from the patches of all images and their grids [images, 3] to those of smaller ones.
    """
    host.add(SmallerImages(host.parts, host.record, None, None, smaller=function))


def reduce_clips(host: Host, function: Callable[[Tensor], Reduced]) -> None:
    """Reduce the frames of each video after the projector; images, and videos of one frame, stay whole.

    `function` takes the tokens of frames, [t, p, d], and keeps some of the t * p.
    """
    reduce_clips_of(host, lambda item: function(item.by_frame))


def reduce_clips_of(host: Host, function: Callable[[Item], Reduced]) -> None:
    """Do the same by a function that is given the whole item: which one it is, and how many frames it has."""

    def reduced(item: Item) -> Reduced:
        n, inside = len(item.tokens), len(item.tokens) - item.tail
        if item.frames < 2 or inside < item.frames:
            return Reduced(item.tokens, torch.arange(n, device=item.tokens.device))
        found = function(item)
        if not item.tail:
            return found
        tail = torch.arange(inside, n, device=item.tokens.device)
        assert found.kept_indices is not None  # noqa: S101  (methods on frames select)
        kept = torch.cat((found.kept_indices, tail))
        tokens = torch.cat((found.tokens, item.tokens[inside:]))
        return replace(found, tokens=tokens, kept_indices=kept)

    reduce_items(host, reduced)


def reduce_in_tower(host: Host, step: Step) -> None:
    """Reduce inside the layers of the vision tower.

    Raises:
        UnsupportedError: another kind of tower, or none of the tokens the method needs.
    """
    host.parts.require_a_token_per_patch(host.method.name)
    tower = TowerReduction(host.parts, host.record, step, host.trace)
    tower.attach(host.patches)
    crops = Crops(host.parts, host.record, None, before_projector=False, tower_counts=tower.counts)
    host.shorten(crops, None)


def reduce_between_layers(host: Host, policy: Callable[[Method, Parts], Policy]) -> None:
    """Reduce between the layers of the language model.

    Raises:
        UnsupportedError: layers or an attention that cannot lose tokens in between.
    """
    host.parts.require_decoder_layers(host.method.name)
    chosen = policy(host.method, host.parts)
    before = host.shortened[-1] if host.shortened else None
    LayerReduction(host.parts, host.record, chosen, before, host.grouping).attach(host.patches)
