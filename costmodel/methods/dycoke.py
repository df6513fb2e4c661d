"""DyCoke: of every second frame of a clip keep the places least like the frame before; thrice of four.

Source: Tao et al., CVPR 2025 (arXiv 2411.15024) and KD-TAO/DyCoke, first stage. With the frames in fours,
frame 1 is compared with 0, frame 3 with 2, and frame 2 with 0, place by place; of a compared frame int(keep
p) of p tokens stay, the least similar. The third comparison ends four frames before the end of the clip.
The second stage, which parks entries of the KV cache at every decode step, is not priced.

Own FLOPs: none that a counter sees; one pass over the n tokens of width d, a sort of p in each compared
frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.methods.clips import clips_of, clips_plan
from costmodel.methods.info import MethodInfo
from costmodel.methods.keep import greatest, kept_count
from costmodel.methods.pieces import gather, passes, sort

if TYPE_CHECKING:
    from costmodel.methods.plan import MethodInput, MethodPlan
    from costmodel.quantities import Num

#: One minus the program's merging ratio of 0.7.
RATIO = 0.3


def compared_frames(frames: Num) -> Num:
    """Return how many frames of a clip are compared with another: every second, and one of four.

    >>> compared_frames(32), compared_frames(4), compared_frames(5)  # 16 + 7, 2 + 0, 2 + 1
    (23, 2, 3)
    """
    return frames // 2 + greatest(-(-(frames - 4) // 4), 0)


def _plan(given: MethodInput) -> MethodPlan:
    clips = clips_of(given)
    n, each, runs, d = clips.tokens, clips.each, clips.runs, given.model.text.hidden_size
    num, lists = given.precision.projector, clips.lists
    fewer = compared_frames(clips.frames)
    kept = n - fewer * (each - kept_count("dycoke", given.keep, each, "down"))
    ops = (
        passes("lengths", lists * n * d, num, reads=1, writes=0, kernels=2, flops=2, count=runs),
        passes("compared", lists * fewer * each * d, num, reads=4, writes=2, kernels=8, flops=3,
               count=runs),
        passes("marks", lists * n, num, reads=6, writes=6, kernels=20, count=runs),
        sort("rank", lists * fewer, each, num, runs),
        sort("order", lists, n, num, runs),
        gather("kept_tokens", lists * (kept + clips.tail), d, num, runs),
    )  # fmt: skip
    return clips_plan("dycoke", given, clips, kept, ops)


INFO = MethodInfo(
    name="dycoke",
    schedule=_plan,
    place="after-projector",
    summary="of a clip's frames but every fourth keep the places least like a frame before",
    formula="n - f (p - int(keep p)) of n = T p tokens, f = T//2 + ceil((T - 4)/4) frames; no FLOPs",
    complexity="O(n d) per clip",
    source="Tao et al. 2025, DyCoke, arXiv 2411.15024; KD-TAO/DyCoke (first stage)",
    default_text="58 of 196 tokens in 23 of 32 frames: 3,098 of 6,272",
    published=("merging ratio 0.7 (keep 0.3) on 32 frames of 196 tokens",),
    keep_meaning="share of a compared frame's tokens that stay",
    keep_kind="ratio",
    default_keep=RATIO,
    rounding=None,
    clips=True,
)
