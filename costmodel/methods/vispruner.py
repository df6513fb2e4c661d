"""VisPruner: after the projector keep important patches, and diverse ones of the others, per crop.

Source: Zhang et al., ICCV 2025 (arXiv 2412.01818) and Theia-4869/VisPruner. Of the k = round(keep x n)
patches that stay, int(k / 2) have the most class attention. The others are thinned out in rounds: split
into even and odd places, the 8 even ones most similar to an odd one go, until k - int(k / 2) are left.
Each round waits for the one before.

Own FLOPs per crop, n patches in a tower of width c: 2 (n+1) c for the class token's row, and
2 ceil(l/2) floor(l/2) c in each round with l patches left, about n^3 c / 48 in all for a small k.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from costmodel.methods.class_attention import class_ranking, kept_patches, ranked_crops
from costmodel.methods.info import MethodInfo
from costmodel.methods.keep import greatest, kept_count, least, share
from costmodel.methods.options import Option, fraction
from costmodel.methods.pieces import FINITE_KERNELS, gather, passes, product, sort
from costmodel.methods.plan import MethodInput, MethodPlan, before_layers

if TYPE_CHECKING:
    from costmodel.precision import Numerics
    from costmodel.quantities import Num, OpCost

COUNT = 64
IMPORTANT = Option("important", 0.5, fraction(0.0, 1.0), "share of them chosen by attention")
REMOVED_PER_ROUND = 8


def thinning(left: Num, wanted: Num) -> tuple[Num, Num, Num]:
    """Return the rounds from `left` to `wanted` candidates, and summed over them: pairs, candidates.

    >>> thinning(20, 9)  # 10 x 10 pairs, 8 go; 6 x 6 pairs, 3 go
    (2, 136, 32)
    """
    rounds, pairs, seen = (0 * (left - wanted) for _ in range(3))
    while np.any(left > wanted):
        going = (left > wanted) * 1
        even = (left + 1) // 2
        rounds = rounds + going
        pairs = pairs + going * even * (left // 2)
        seen = seen + going * left
        left = left - going * least(least(left - wanted, REMOVED_PER_ROUND), even)
    return rounds, pairs, seen


def _rounds(images: Num, left: Num, wanted: Num, c: int, num: Numerics, runs: Num) -> list[OpCost]:
    """The rounds, each at their mean size, with the pairs of all of them exact."""
    rounds, pairs, seen = thinning(left, wanted)
    divisor = greatest(rounds, 1)
    each, mean = pairs // divisor, seen / divisor
    larger = pairs - each * divisor
    ops = []
    # Pairs are whole: some rounds have one more than the others.
    for size, count in ((each, (rounds - larger) * runs), (each + 1, larger * runs)):
        side = size**0.5
        flops = 2 * images * size * c
        op = product("similarity", images, side, side, c, num, count)
        ops.append(op._replace(flops=flops, matrix_flops=flops))
    count = rounds * runs
    return [
        *ops,
        gather("candidates", images * mean, c, num, count, kernels=2),
        passes("closest", images * each, num, writes=0, count=count),
        sort("closest_first", images, mean / 2, num, count),
        passes("survivors", images * mean, num, reads=8, writes=8, kernels=2, flops=0, count=count),
    ]


def _plan(given: MethodInput) -> MethodPlan:
    crops, c = ranked_crops(given), given.feature_width
    num, images, n, runs = given.precision.vision, crops.images, crops.patches, crops.runs
    kept = kept_count("vispruner", given.keep, n)
    important = share(IMPORTANT.of(given), kept, "down")
    ops = [
        *class_ranking(given, crops),
        passes("normalise", images * n * c, num, reads=2, kernels=3 + FINITE_KERNELS, flops=3,
               count=runs),
        sort("rank", images, n, num, runs),
        *_rounds(images, n - important, kept - important, c, num, runs * (kept > important)),
        *kept_patches(given, crops, kept),
    ]  # fmt: skip
    note = {"vispruner": "keep counts patches of each crop, a share of them chosen by attention"}
    return before_layers(given, crops.left(given, kept), ops, note)


def _released(given: MethodInput) -> list[OpCost]:
    """The program's ops: every layer of the tower writes its scores out, and rounds wait for the host."""
    crops, h, c = ranked_crops(given), given.tower.num_heads, given.feature_width
    num, images, n, runs = given.precision.vision, crops.images, crops.patches, crops.runs
    kept = kept_count("vispruner", given.keep, n)
    important = share(IMPORTANT.of(given), kept, "down")
    rounds = -(-(n - kept) // REMOVED_PER_ROUND)
    return [
        # Scores written, softmaxed in float32 and back, then read by the values; no FLOPs beside the tower's.
        passes("scores_written_out", images * h * (n + 1) ** 2, num, reads=5, writes=5, kernels=4,
               flops=7, count=given.vision_layers * runs),
        passes("mean_heads", images * h * n, num, writes=1 / h, count=runs),
        passes("normalise", images * n * c, num, reads=2, kernels=2, flops=3, count=runs),
        sort("rank", images, n, num, runs),
        *_rounds(images, n - important, kept - important, c, num, runs * (kept > important)),
        # Rows of two tables are picked by lists of places that the host makes and copies over.
        passes("places_copied", images * n, num, flops=0, kernels=2, count=rounds * runs),
        *kept_patches(given, crops, kept),
    ]  # fmt: skip


INFO = MethodInfo(
    name="vispruner",
    schedule=_plan,
    place="after-projector",
    summary="keep patches by class attention, and of the others those unlike each other",
    formula="round(keep n) tokens per crop; 2(n+1)c + sum over rounds of 2 ceil(l/2) floor(l/2) c",
    complexity="O(n^3 c) per crop, (n - k)/8 sequential rounds",
    source="Zhang et al. 2025, VisPruner, arXiv 2412.01818; Theia-4869/VisPruner",
    default_text=f"{COUNT} patches of each crop",
    needs_text="the class token's attention in vision layer -2, and the features before the projector",
    by_crop=True,
    needs_class_token=True,
    needs=frozenset({"clip_attention", "clip_features"}),
    keep_meaning="patches of each crop kept",
    default_keep=COUNT,
    options=(IMPORTANT,),
    variants=("program", "released"),
    released=_released,
    recomputes="the class token's row of scores in vision layer -2",
)
