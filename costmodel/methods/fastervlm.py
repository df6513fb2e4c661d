"""FasterVLM: after the projector keep the patches that the class token attends to, per crop.

Source: Zhang et al. 2024 (arXiv 2412.01818) and Theia-4869/FasterVLM. The score is the mean over heads
of the class token's attention in vision layer -2, whose output is the feature. The projector sees every
token; round(keep x n) of n patches stay, in spatial order.

Own FLOPs per crop, n patches in a tower of width c: 2 (n+1) c for the class token's row.
"""

from __future__ import annotations

from costmodel.methods.class_attention import class_ranking, kept_patches, ranked_crops
from costmodel.methods.info import MethodInfo
from costmodel.methods.keep import kept_count, share
from costmodel.methods.pieces import sort
from costmodel.methods.plan import MethodInput, MethodPlan, before_layers

#: A choice of ours, as strong as pruning gets in comparisons; no published default was found.
RATIO = 0.05


def _plan(given: MethodInput) -> MethodPlan:
    crops = ranked_crops(given)
    kept = kept_count("fastervlm", given.keep, crops.patches)
    ops = [
        *class_ranking(given, crops),
        sort("rank", crops.images, crops.patches, given.precision.vision, crops.runs),
        *kept_patches(given, crops, kept),
    ]
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
