"""EVS: of a clip keep the tokens that differ most from the same place a frame before.

Source: Efficient Video Sampling (arXiv 2510.14624), as serving engines have it behind the projector. A
token's score is one minus its cosine with the token of the same place in the frame before; the first
frame's are above all others. max(h w, int(keep T h w)) tokens with the largest scores over the whole clip
stay, so the first frame always does: of one to three frames at keep 0.3 nothing but it.

Own FLOPs: none that a counter sees; one pass over n tokens of width d for the cosines, one sort of n.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.methods.clips import clips_of, clips_plan
from costmodel.methods.info import MethodInfo
from costmodel.methods.keep import greatest, kept_count
from costmodel.methods.pieces import gather, passes, sort

if TYPE_CHECKING:
    from costmodel.methods.plan import MethodInput, MethodPlan

#: One minus the pruning rate that Nemotron's video models are served with.
RATIO = 0.3


def _plan(given: MethodInput) -> MethodPlan:
    clips = clips_of(given)
    n, runs, d = clips.tokens, clips.runs, given.model.text.hidden_size
    num = given.precision.projector
    kept = greatest(kept_count("evs", given.keep, n, "down"), clips.each)
    lists = clips.lists
    ops = (
        passes("normalise", lists * n * d, num, reads=2, writes=1, kernels=3, flops=3, count=runs),
        passes("frame_before", lists * n * d, num, reads=3, writes=1, kernels=2, flops=2, count=runs),
        passes("scores", lists * n, num, reads=3, writes=3, kernels=10, count=runs),
        sort("rank", lists, n, num, runs),
        sort("order", lists, kept, num, runs),
        gather("kept_tokens", lists * (kept + clips.tail), d, num, runs),
    )  # fmt: skip
    return clips_plan("evs", given, clips, kept, ops)


INFO = MethodInfo(
    name="evs",
    schedule=_plan,
    place="after-projector",
    summary="of a clip keep what differs from the frame before",
    formula="max(h w, int(keep T h w)) tokens of a clip; no FLOPs, one pass over n d",
    complexity="O(n d + n log n) per clip",
    source="Bagrov et al. 2025, Efficient Video Sampling, arXiv 2510.14624; vLLM, SGLang",
    default_text=f"{RATIO} of a clip's tokens, its first frame at least",
    published=("pruning rate 0.7 (keep 0.3) as served with Nemotron",),
    keep_meaning="tokens of each clip kept, those of a frame at least",
    default_keep=RATIO,
    rounding="down",
    clips=True,
)
