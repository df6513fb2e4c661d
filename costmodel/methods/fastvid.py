"""FastVID: of each frame what stands out, and of some frames of every scene anchors that the rest joins.

Source: Shen et al., NeurIPS 2025 (arXiv 2503.11187) and LunarShen/FastVID. A clip is cut into scenes at the
c - 1 neighbours whose frame features are least alike and wherever their cosine is below a threshold. Of K =
int(keep x p) of a frame's p tokens, K - int(0.4 K) are salient: those that the tower looks at most. int(0.4
K) a frame are anchors, gathered on every fourth frame of a scene counted from its end, by density peaks
among what is not salient; every token of the scene that is not salient joins its most similar anchor.

Frame feature and attention come from SigLIP's pooling head, which checkpoints leave out and a file holds;
on towers of native resolution from the mean of a frame's tokens and from the tower's last layer.

Own FLOPs, t frames of p tokens of width d, s salient: 2 (p - s)^2 d for the density in each frame that has
anchors; in a scene of f frames with a anchors 2 f (p - s) a d for the cosines and as much for the means. The
pooling head over n patches of width c, m its MLP's width: 4 t n c^2 + 4 t n c + 2 t c^2 + 2 c^2 + 4 t c m.
How long scenes are depends on the clip: they are priced as c of equal length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.methods.clips import Clips, check_weighed, clips_of, clips_plan, received_in_tower
from costmodel.methods.info import MethodInfo
from costmodel.methods.keep import by_pair, kept_count, share, some
from costmodel.methods.options import FILE, Option, fraction, whole
from costmodel.methods.pieces import FINITE_KERNELS, gather, passes, product, sort
from costmodel.ops.linear import linear
from costmodel.precision import parse_precision

if TYPE_CHECKING:
    from collections.abc import Callable

    from costmodel.methods.plan import MethodInput, MethodPlan
    from costmodel.quantities import Num, OpCost

RATIO = 0.1
SEGMENTS = Option("segments", 8, whole(1), "scenes at least, where a clip has frames for them")
THRESHOLD = Option(
    "threshold", 0.9, fraction(-1.0, 1.0), "cosine of frames below which a scene ends"
)
CONTEXT = Option("context", 0.4, fraction(0.0, 1.0), "share of K for anchors")
EVERY = Option("every", 4, whole(1), "frames of a scene for one with anchors")
OWN = Option("own", 0.6, fraction(0.0, 1.0), "least weight of an anchor itself")
HEAD = Option("head", None, FILE, "SigLIP's pooling head; random without")
#: Neighbours of the density.
NEIGHBOURS = 4


def split_frame(each: Num, keep: float, context: float) -> tuple[Num, Num]:
    """Return the salient tokens and the anchors of a frame.

    >>> split_frame(196, 0.1, 0.4)  # 19.6; 7.6
    (12, 7)
    """
    kept = kept_count("fastvid", keep, each, "down")
    anchors = share(context, kept, "down")
    return kept - anchors, anchors


def anchors_of(length: int, anchors: int, every: int, available: int) -> tuple[int, int]:
    """Return the frames of a scene that have anchors, and how many each has.

    >>> anchors_of(4, 7, 4, 184), anchors_of(5, 7, 4, 184), anchors_of(4, 7, 4, 20)
    ((1, 28), (2, 17), (1, 20))
    """
    frames = -(-length // every)
    return frames, min(anchors * length // frames, available)


def scenes(frames: int, segments: int) -> list[int]:
    """Return the lengths of scenes that are as equal as they can be.

    >>> scenes(32, 8)[:2], scenes(7, 3), scenes(2, 8)
    ([4, 4], [3, 2, 2], [1, 1])
    """
    count = min(segments, frames)
    return [frames // count + (place < frames % count) for place in range(count)]


def _looked_at(given: MethodInput, clips: Clips) -> list[OpCost]:
    """Frame features, and what the tower looks at in each frame."""
    tower, num, d = given.tower, given.precision.vision, given.model.text.hidden_size
    c, h, runs, frames = tower.hidden_size, tower.num_heads, clips.runs, clips.lists * clips.frames
    if tower.native:
        return [
            *received_in_tower(given, clips),
            passes("frame_features", clips.lists * clips.tokens * d, num, writes=0, count=runs),
        ]  # fmt: skip
    n = tower.patches
    return [
        linear("head_q", c, c, num, True)(clips.lists, runs),
        linear("head_kv", c, 2 * c, num, True)(frames * n, runs),
        product("head_scores", frames * h, 1, n, tower.head_dim, num, runs),
        passes("head_softmax", frames * h * n, num, reads=4, writes=3, kernels=3, flops=7, count=runs),
        product("head_mix", frames * h, 1, tower.head_dim, n, num, runs),
        linear("head_out", c, c, num, True)(frames, runs),
        linear("head_fc1", c, tower.intermediate_size, num, True)(frames, runs),
        linear("head_fc2", tower.intermediate_size, c, num, True)(frames, runs),
        passes("head_rest", frames * (c + n), num, reads=8, writes=6, kernels=12, flops=10, count=runs),
    ]  # fmt: skip


def _plan(given: MethodInput) -> MethodPlan:
    clips = clips_of(given)
    if some(clips.runs > 0):
        check_weighed("fastvid", given)
    runs, d, lists = clips.runs, given.model.text.hidden_size, clips.lists
    num, frames, each = given.precision.projector, clips.frames, clips.each
    wide = parse_precision("fp32").projector
    salient, context = split_frame(each, given.keep, CONTEXT.of(given))
    rest, every, wanted = each - salient, EVERY.of(given), SEGMENTS.of(given)

    def summed(term: Callable[[int, int, int], int]) -> Num:
        """Return a sum over scenes, each of so many frames, of which some have so many anchors each."""

        def of_scenes(t: int, p: int) -> int:
            s, k = split_frame(p, given.keep, CONTEXT.of(given)) if p else (0, 0)
            lengths = scenes(t, wanted)
            return sum(term(f, *anchors_of(f, int(k), every, int(p - s))) for f in lengths)

        return by_pair(of_scenes, frames, each)

    ranked = summed(lambda _, having, __: having)
    anchors = summed(lambda _, having, many: having * many)
    pairs = summed(lambda f, having, many: f * having * many)
    kept = frames * salient + anchors
    cut = runs * (context > 0)
    # Scenes go one after the other, here as one of all their tokens and anchors.
    ops = [
        *_looked_at(given, clips),
        passes("scenes", lists * frames * d, num, reads=3, writes=2, kernels=12, flops=4, count=runs),
        sort("salient", lists * frames, each, num, runs),
        gather("others", lists * frames * rest, d, num, cut, kernels=4),
        product("distances", lists * ranked, rest, rest, d, wide, cut),
        passes("density", lists * ranked * rest**2, wide, reads=9, writes=6, kernels=24, flops=9,
               count=cut),
        sort("anchors", lists * ranked, rest, num, cut),
        passes("lengths", lists * clips.tokens * d, num, writes=0, kernels=1 + FINITE_KERNELS, flops=2,
               count=runs),
        passes("unit", lists * anchors * d, num, reads=2, writes=1, kernels=4 * wanted, flops=3,
               count=cut),
        product("similarity", lists, rest, pairs, d, num, cut),
        passes("nearest", lists * rest * pairs, num, reads=6, writes=6, kernels=9 * wanted, flops=1,
               count=cut),
        product("merge", lists, rest, d, pairs, num, cut),
        passes("weigh", lists * anchors * d, num, reads=6, writes=4, kernels=10 * wanted, flops=4,
               count=cut),
        sort("order", lists, kept, num, runs),
        gather("kept_tokens", lists * (kept + clips.tail), d, num, runs),
    ]  # fmt: skip
    plan = clips_plan("fastvid", given, clips, kept, ops)
    note = f"scenes are the clip's: priced as {wanted} of equal length"
    return plan._replace(notes={**plan.notes, "fastvid": note})


INFO = MethodInfo(
    name="fastvid",
    schedule=_plan,
    place="after-projector",
    summary="of a clip keep what stands out in each frame, and anchors of each scene that the rest joins",
    formula="int(keep p) tokens a frame; t r^2 d / 2 + 4 r d sum(f a) FLOPs, r = p - s, and a pooling head",
    complexity="O(t p^2 d + t n c^2) per clip",
    source="Shen et al. 2025, FastVID, arXiv 2503.11187; LunarShen/FastVID",
    default_text=f"{RATIO} of a frame's tokens: 19 of 196, 7 of them anchors",
    needs_text="SigLIP's pooling head, from a file, or a tower of native resolution",
    published=("retention 0.1, c 8, tau 0.9, d 0.4, p 4, alpha 0.6 on 32 frames of 196 tokens",),
    needs=frozenset({"frame_features", "tower_attention"}),
    keep_meaning="share of a frame's tokens",
    keep_kind="ratio",
    default_keep=RATIO,
    rounding=None,
    options=(SEGMENTS, THRESHOLD, CONTEXT, EVERY, OWN, HEAD),
    count_known=False,
    recomputes="behind towers of native resolution the last layer's map",
    clips=True,
)
