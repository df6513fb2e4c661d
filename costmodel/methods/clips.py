"""The clips that methods for videos work on: frames of as many tokens each, and what ends a clip."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from costmodel.methods.class_attention import received_again
from costmodel.methods.keep import greatest, some
from costmodel.methods.pieces import passes, product
from costmodel.methods.plan import MethodInput, MethodPlan, before_layers
from costmodel.methods.token_lists import items_of
from hardware_specs.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterable

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
    rule = given.model.video
    if given.parts or rule is None or (rule.as_tiles and not given.framed):
        return Clips(given.batch_size, 1, 0, 0, 0)
    items = items_of(given)
    frames = greatest(given.crops // items.per_sample, 1)
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
    """Return the plan of a method after the projector that keeps `kept` tokens of each clip, and its tail."""
    tokens = given.visual_tokens * (1 - clips.runs)
    tokens = tokens + greatest(given.images, 1) * (kept + clips.tail) * clips.runs
    plan = before_layers(given, tokens, ops, {})
    if some(clips.runs > 0):
        return plan
    said = (
        f"{name} compares the frames of a clip, and leaves images and single frames as they are: "
    )
    return plan._replace(warnings=(f"{said}give frames=",))


def check_weighed(name: str, given: MethodInput) -> None:
    """Raise where neither a feature of a frame nor the attention to its tokens can be had.

    Raises:
        UnsupportedError: a tower that is neither of native resolution nor SigLIP's with frames pooled behind
            the projector.
    """
    rule, tower = given.model.video, given.tower
    pooled = rule is not None and rule.tokens_per_frame < rule.projected_per_frame
    if tower.native or (pooled and not tower.has_cls):
        return
    raise UnsupportedError(not_weighed(name, given.model.name))


def not_weighed(name: str, model: str) -> str:
    """Return why a method cannot weigh a model's frames."""
    return (
        f"{name} weighs frames by a SigLIP tower whose frames are pooled behind the projector "
        f"(LLaVA-OneVision) or by one of native resolution (Qwen), and {model} has neither; "
        "vidcom2, evs and dycoke need nothing but the tokens"
    )


def received_in_tower(given: MethodInput, clips: Clips) -> list[OpCost]:
    """Return the ops of the attention that each token of a frame receives in a tower's last layer, again."""
    tower, num = given.tower, given.precision.vision
    h, n, runs, frames = tower.num_heads, tower.patches, clips.runs, clips.lists * clips.frames
    if tower.native:
        return received_again(given, frames, clips.each, runs)
    return [
        product("attention_again", frames * h, n, n, tower.head_dim, num, runs),
        passes(
            "received", frames * h * n**2, num, reads=5, writes=4, kernels=3, flops=7, count=runs
        ),
        passes("pool", frames * n, num, kernels=2, flops=4, count=runs),
    ]
