"""VidCom2: of a clip keep the tokens least like their frame and their video, more of unusual frames.

Source: Liu et al., EMNLP 2025 (arXiv 2505.14454), xuyang-liu16/VidCom2, and its port to a serving engine. On
the half of the channels that vary least, a token scores how near it is to the mean of its frame and to that
of the clip; the lowest stay. A frame's share grows with how unlike the clip it is, and the counts are brought
to max(T, int(keep n)) in all, as the port does: then the number of tokens is known before the tower runs.

Own FLOPs: none that a counter sees; passes over n tokens of width d / 2, two sorts of n.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.methods.clips import clips_of, clips_plan
from costmodel.methods.info import MethodInfo
from costmodel.methods.keep import greatest, kept_count
from costmodel.methods.pieces import FINITE_KERNELS, gather, passes, sort

if TYPE_CHECKING:
    from costmodel.methods.plan import MethodInput, MethodPlan

RATIO = 0.25
#: Widths of the kernels that a distance is put through, and how sharply a frame's share follows its score.
WIDTHS = (0.125, 0.25, 0.5, 1.0, 2.0)
TEMPERATURE = 0.01


def _plan(given: MethodInput) -> MethodPlan:
    clips = clips_of(given)
    n, runs, d, lists = clips.tokens, clips.runs, given.model.text.hidden_size, clips.lists
    num = given.precision.projector
    half = lists * n * (d // 2)
    kept = greatest(kept_count("vidcom2", given.keep, n, "down"), clips.frames)
    ops = (
        passes("variance", lists * n * d, num, reads=2, writes=0, kernels=2 + FINITE_KERNELS,
               flops=4, count=runs),
        sort("channels", lists, d, num, runs),
        gather("quiet_channels", lists * n, d // 2, num, runs),
        passes("normalise", half, num, reads=3, writes=2, kernels=3, flops=3, count=runs),
        passes("centres", half, num, reads=2, writes=0, kernels=2, flops=2, count=runs),
        passes("distances", half, num, reads=6, writes=4, kernels=6, flops=6, count=runs),
        passes("scores", lists * n, num, reads=34, writes=24, kernels=50, flops=40, count=runs),
        sort("rank", lists, n, num, 4 * runs),
        sort("order", lists, kept, num, runs),
        gather("kept_tokens", lists * (kept + clips.tail), d, num, runs),
    )  # fmt: skip
    return clips_plan("vidcom2", given, clips, kept, ops)


INFO = MethodInfo(
    name="vidcom2",
    schedule=_plan,
    place="after-projector",
    summary="of a clip keep what is unlike its frame and its video, more of unusual frames",
    formula="max(T, int(keep n)) tokens of a clip; no FLOPs, passes over n d",
    complexity="O(n d + n log n) per clip",
    source="Liu et al. 2025, VidCom2, arXiv 2505.14454; xuyang-liu16/VidCom2; vLLM",
    default_text=f"{RATIO} of a clip's tokens, as many as its frames at least",
    published=("retention 0.25",),
    keep_meaning="tokens of each clip kept, as many as its frames at least",
    default_keep=RATIO,
    rounding="down",
    clips=True,
)
