"""The clips that methods for videos work on: frames of as many tokens each, and what ends a clip."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from costmodel.methods.keep import greatest, some
from costmodel.methods.plan import before_layers
from costmodel.methods.token_lists import items_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from costmodel.methods.plan import MethodInput, MethodPlan
    from costmodel.quantities import Num, OpCost


class Clips(NamedTuple):
    """The clips of a request; an image is none, and a single frame has nothing to be compared with.

    Attributes:
        lists: batch x clips.
        frames: of each, or pairs of frames where the tower makes one token list of two.
        each: tokens of a frame; 0 where there is no clip.
        tail: tokens behind the last frame, which stay.
        runs: 1 where there are two frames at least, else 0.
    """

    lists: Num
    frames: Num
    each: Num
    tail: Num
    runs: Num

    @property
    def tokens(self) -> Num:
        """Tokens of all frames of a clip."""
        return self.frames * self.each


def clips_of(given: MethodInput) -> Clips:
    """Return the clips of a request, as numbers or as arrays over scenarios."""
    items, rule = items_of(given), given.model.video
    frames = greatest(given.crops // items.per_sample, 1)
    if rule is None or (rule.as_tiles and not given.framed):
        return Clips(items.lists, frames, 0, 0, 0)
    clip = frames > 1
    if not given.model.geometry.keeps_size:
        # Tiles are crops, too: a clip is what has so many tokens for each of its frames.
        tail, counts = rule.tail_tokens, (rule.tokens_per_frame, rule.exact_tokens_per_frame)
        of_frames = [given.visual_tokens == given.crops * each + tail for each in counts]
        clip = clip & (of_frames[0] | of_frames[1])
    runs = clip * 1
    each = (items.tokens - rule.tail_tokens) // frames * runs
    return Clips(items.lists, frames, each, rule.tail_tokens, runs)


def clips_plan(
    name: str, given: MethodInput, clips: Clips, kept: Num, ops: Iterable[OpCost]
) -> MethodPlan:
    """Return the plan of a method behind the projector that keeps `kept` tokens of each clip's frames.

    Args:
        name: the method's.
        given: the request.
        clips: its clips.
        kept: tokens of each clip that stay, the tail not counted.
        ops: the method's own, run where there are clips.
    """
    tokens = given.visual_tokens * (1 - clips.runs)
    tokens = tokens + greatest(given.images, 1) * (kept + clips.tail) * clips.runs
    plan = before_layers(given, tokens, ops, {})
    if some(clips.runs > 0):
        return plan
    said = (
        f"{name} compares the frames of a clip, and leaves images and single frames as they are: "
    )
    return plan._replace(warnings=(f"{said}give frames=",))
