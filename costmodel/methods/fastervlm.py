"""FasterVLM: after the projector keep the patches that the class token attends to, per crop.

Source: Zhang et al. 2024 (arXiv 2412.01818) and Theia-4869/FasterVLM. The score is the mean over heads
of the class token's attention in vision layer -2, whose output is the feature. The projector sees every
token; round(keep x n) of n patches stay, in spatial order.

Own FLOPs per crop, n patches in a tower of width c: 2 (n+1) c for the class token's row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.methods.class_attention import FINITE_KERNELS, Ranked, class_row, ranked_crops
from costmodel.methods.info import MethodInfo
from costmodel.methods.keep import kept_count, share
from costmodel.methods.pieces import gather, passes, sort
from costmodel.methods.plan import before_layers

if TYPE_CHECKING:
    from costmodel.methods.plan import MethodInput, MethodPlan
    from costmodel.quantities import Num, OpCost

#: A choice of ours, as strong as pruning gets in comparisons; no published default was found.
RATIO = 0.05


def kept_patches(given: MethodInput, crops: Ranked, kept: Num) -> list[OpCost]:
    """Return the ops that sort the picks back into spatial order and copy the projected tokens."""
    num, d = given.precision.projector, given.model.text.hidden_size
    images, runs = crops.images, crops.runs
    return [
        sort("order", images, kept, num, runs),
        gather("kept_tokens", images * kept, d, num, runs),
        passes("class_token_beside", images * (kept + 1) * d, num, flops=0,
               count=runs * crops.beside),
    ]  # fmt: skip


def _plan(given: MethodInput) -> MethodPlan:
    crops, h = ranked_crops(given), given.tower.num_heads
    num, n = given.precision.vision, crops.patches
    kept = kept_count("fastervlm", given.keep, n)
    ops = [
        *class_row(given, crops),
        passes("mean_heads", crops.images * h * n, num, writes=1 / h, kernels=1 + FINITE_KERNELS,
               count=crops.runs),
        sort("rank", crops.images, n, num, crops.runs),
        *kept_patches(given, crops, kept),
    ]  # fmt: skip
    note = {"fastervlm": "keep counts patches of each crop"}
    return before_layers(given, crops.left(given, kept), ops, note)


INFO = MethodInfo(
    name="fastervlm",
    schedule=_plan,
    place="after-projector",
    summary="after the projector keep the patches the class token attends to most",
    formula="round(keep n) tokens per crop; 2(n+1)c FLOPs",
    complexity="O(n c) per crop",
    source="Zhang et al. 2024, FasterVLM, arXiv 2412.01818; Theia-4869/FasterVLM",
    default_text=f"5 % of the patches of each crop, {share(RATIO, 576)} of 576",
    needs_text="the class token's attention in vision layer -2",
    by_crop=True,
    needs_class_token=True,
    needs=frozenset({"clip_attention"}),
    keep_meaning="patches of each crop kept",
    default_keep=RATIO,
    recomputes="the class token's row of scores in vision layer -2",
)
