"""HoliTom: what stands still in a scene becomes one frame's, each frame is thinned out, and half goes later.

Source: Shao et al., NeurIPS 2025 (arXiv 2505.21334) and cokeshao/HoliTom. A clip of t frames of p tokens is
cut into scenes so that the number of tokens that stand still (cosine to the next frame above a threshold all
through the scene), less one copy of each, is the largest; dynamic programming finds it. What stands still is
averaged over its scene. Of what is left, m tokens, a share min(1, keep t p / m) stays: of each frame's moving
tokens those that the tower looks at most (rounded up), of each scene's still ones centres by density peaks
that the others join. Behind layer 18 of 28 of the language model half of the visual tokens are averaged,
one after the other, into the most similar of those that the last token attends to; images are left alone.

Own FLOPs: the attention map of the tower's last layer, 4 t n^2 c / 2 over n patches of width c; inside the
language model 2 h s e for a row of scores, and 2 g k d for cosines and as much for means, g tokens gone and k
left. How much stands still is the clip's: priced is one in which nothing does, so that keep p tokens of each
frame stay. Whatever stands still, about keep t p stay; each scene's s still positions, m of them centres, add
2 s^2 d for the densities and 2 (s - m) m d for the means.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from costmodel.methods.clips import check_weighed, clips_of, clips_plan, received_in_tower
from costmodel.methods.info import MethodInfo
from costmodel.methods.keep import kept_count, some
from costmodel.methods.llm_ranking import cut_layers, narrowed
from costmodel.methods.options import Option, Values, fraction, optional, whole
from costmodel.methods.pieces import FINITE_KERNELS, gather, in_layer, passes, product, sort
from costmodel.methods.plan import MethodInput, MethodPlan, between_layers

if TYPE_CHECKING:
    from costmodel.quantities import Num, OpCost

RATIO = 0.15
#: Neighbours of the density, frames of a scene at most, and the published cut of so many layers.
NEIGHBOURS, LONGEST, PUBLISHED_CUT = 7, 1024, (18, 28)
THRESHOLD = Option(
    "threshold",
    0.8,
    fraction(-1.0, 1.0),
    "cosine to the next frame above which a token stands still",
)
OWN = Option("own", 0.6, fraction(0.0, 1.0), "weight of a centre itself")
CUT = Option(
    "cut",
    None,
    optional(Values(whole(0).parse, "a layer from 0,")),
    "language-model layer of the second stage; None is 18 of 28, 0 leaves the stage out",
)
DEEP = Option("deep", 0.5, fraction(0.0, 1.0, above=True), "share that the second stage leaves")


def cut_layer(layers: int, asked: int | None) -> int:
    """Return the layer at whose entry the second stage merges; 0 for none.

    Raises:
        InvalidInputError: a layer the model does not have.

    >>> cut_layer(28, None), cut_layer(24, None), cut_layer(28, 3), cut_layer(28, 0)
    (18, 15, 3, 0)
    """
    at, of = PUBLISHED_CUT
    (cut,) = cut_layers(
        "holitom", (layers * at // of if asked is None else asked,), layers, option="cut"
    )
    return cut


def share_left(keep: float, still: int, tokens: int) -> float:
    """Return the share of what is left that stays, `still` of a clip's tokens being copies of others.

    >>> share_left(0.15, 0, 6272), share_left(0.15, 3136, 6272), share_left(0.15, 6076, 6272)
    (0.15, 0.3, 1.0)
    """
    return min(keep / ((tokens - still) / tokens), 1.0)


def _later(given: MethodInput, n: Num, left: Num, runs: Num) -> list[OpCost]:
    """The second stage: a row of attention, and what goes averaged into what is left."""
    text, num, b = given.model.text, given.precision.text, given.batch_size
    d, h, e, s = text.hidden_size, text.num_heads, text.head_dim, given.text_tokens + n
    gone = n - left
    merges = runs * (gone > 0)
    return [
        product("last_row_scores", b * h, 1, s, e, num, runs),
        passes("last_row_softmax", b * h * s, num, reads=3, writes=2, kernels=3, flops=7, count=runs),
        sort("rank_later", b, n, num, runs),
        passes("lengths_later", b * n * d, num, writes=0, kernels=1 + 2 * FINITE_KERNELS, flops=2,
               count=runs),
        passes("unit_later", b * left * d, num, reads=2, kernels=4, flops=3, count=merges),
        gather("left_and_gone", b * n, d, num, merges, kernels=2),
        product("similarity_later", b, gone, left, d, num, merges),
        passes("turns", b * gone * left, num, reads=9, writes=8, kernels=14, flops=4, count=merges),
        product("merge_later", b, left, d, gone, num, merges),
        passes("put_back", b * (s + left) * d, num, reads=3, writes=3, kernels=5, flops=2,
               count=merges),
        *narrowed(given, n, left, runs, moves=4, kernels=10),
    ]  # fmt: skip


def _plan(given: MethodInput) -> MethodPlan:
    clips = clips_of(given)
    if some(clips.runs > 0):
        check_weighed("holitom", given)
    runs, d, lists = clips.runs, given.model.text.hidden_size, clips.lists
    num, frames, each = given.precision.projector, clips.frames, clips.each
    kept = frames * kept_count("holitom", given.keep, each, "up")
    ops = [
        *received_in_tower(given, clips),
        passes("likeness", lists * clips.tokens * d, num, reads=4, writes=2,
               kernels=8 + FINITE_KERNELS, flops=4, count=runs),
        passes("still", lists * clips.tokens, num, reads=8, writes=8, kernels=16, count=runs),
        sort("rank", lists * frames, each, num, runs),
        sort("order", lists, kept, num, runs),
        gather("kept_tokens", lists * (kept + clips.tail), d, num, runs, kernels=2),
    ]  # fmt: skip
    plan = clips_plan("holitom", given, clips, kept, ops)
    note = {
        "holitom": "how much stands still is the clip's: priced as a clip in which nothing does"
    }
    plan = plan._replace(notes={**plan.notes, **note})
    cut = cut_layer(given.model.text.num_layers, CUT.of(given))
    if not cut:
        return plan
    n = plan.llm_spans[0].tokens
    left = kept_count("holitom", DEEP.of(given), n * runs) + n * (1 - runs)
    later = in_layer(_later(given, n, left, runs), cut)
    deep = between_layers(given, (cut,), (n, left), [*plan.ops, *later], plan.notes)
    return deep._replace(warnings=plan.warnings)


_TWICE = MethodInfo(
    name="holitom",
    schedule=_plan,
    place="after-projector",
    second_place="llm-layer",
    summary="average what stands still in a clip's scenes, thin out its frames, and merge half away later",
    formula="t ceil(keep p) tokens, round(half) from layer 18 of 28 on; 2tn^2c + 2hse + 4gkd FLOPs",
    complexity="O(t n^2 c + t^2 + t p d) per clip, O(g k d) at one layer",
    source="Shao et al. 2025, HoliTom, arXiv 2505.21334; cokeshao/HoliTom",
    default_text=f"{RATIO} of a clip's tokens: 960 of 6,272, 480 of them from layer 18 of 28 on",
    needs_text="the tower's attention in its last layer; one attention row of layer 17",
    published=(
        "retention 0.15, T 0.8, k 18, r 0.5 on 32 frames of 196 tokens",
        "0.1, T 0.8, k 3, r 0.5: the program's defaults",
        "without merging inside the model: cut=0",
    ),
    needs=frozenset({"tower_attention", "llm_attention_row", "llm_states"}),
    keep_meaning="share of a clip's tokens before the cut inside the language model",
    keep_kind="ratio",
    default_keep=RATIO,
    rounding=None,
    options=(THRESHOLD, OWN, CUT, DEEP),
    asks_question=True,
    count_known=False,
    recomputes="the attention map of the tower's last layer; the last query's row of layer 17",
    clips=True,
)
#: Without merging inside the model another method may do so.
INFO = replace(
    _TWICE,
    forms={
        "cut=0": replace(
            _TWICE,
            second_place=None,
            summary="average what stands still in a clip's scenes, and thin out its frames",
            formula="t ceil(keep p) tokens; 2tn^2c FLOPs",
            complexity="O(t n^2 c + t^2 + t p d) per clip",
            default_text=f"{RATIO} of a clip's tokens: 960 of 6,272",
            needs=frozenset({"tower_attention"}),
            needs_text="the tower's attention in its last layer",
            asks_question=False,
            recomputes="the attention map of the tower's last layer",
        )
    },
)
