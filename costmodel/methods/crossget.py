"""CrossGET: merge r tokens per vision layer on a complete graph, guided by a learned cross token.

Source: Shi et al., ICML 2024 (arXiv 2305.17455) and sdc17/CrossGET. A learned cross token stands last in
every layer; it and the class token are never merged. With r = 13 the 578 tokens of LLaVA-1.5 are 279
after 23 layers, and 278, the cross token among them, reach the projector. Results need fine-tuning.

Own FLOPs per layer and crop, t tokens, e width of a head: 2 t^2 e for the cosines. The attention map,
whose mean over heads says how important a token is, is the layer's own: every layer writes it out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.methods.info import MethodInfo
from costmodel.methods.keep import least
from costmodel.methods.options import FILE, MERGES, Option
from costmodel.methods.pieces import gather, in_layer, passes, product, sort
from costmodel.methods.tome import PAIRS, merges_per_layer
from costmodel.methods.tower import tower_plan
from costmodel.schedule import LayerSpan

if TYPE_CHECKING:
    from costmodel.methods.plan import MethodInput, MethodPlan
    from costmodel.quantities import Num, OpCost

#: The class token and the cross token.
PROTECTED = 2
R = Option("r", PAIRS, MERGES, "tokens merged per layer", for_keep=True)
WEIGHTS = Option("weights", None, FILE, "the learned cross tokens; random without")


def _graph_ops(given: MethodInput, images: Num, t: Num, r: Num) -> list[OpCost]:
    tower, num = given.tower, given.precision.vision
    c, h, e = tower.hidden_size, tower.num_heads, tower.head_dim
    pairs = images * t * t
    return [
        passes("guide", images * t * c, num, kernels=3),
        passes("mean_heads", pairs, num, reads=h, writes=1, flops=h),
        passes("importance", pairs, num, reads=1, writes=0, kernels=3),
        passes("mean_keys", images * t * e, num, reads=c / e, writes=1, kernels=1, flops=c / e),
        passes("normalise", images * t * e, num, reads=3, writes=1, kernels=2, flops=3),
        product("similarity", images, t, t, e, num),
        passes("protect", images * t * 5, num, reads=0, writes=1, kernels=5, flops=0),
        passes("best_match", pairs, num, reads=1, writes=0, kernels=1),
        sort("connected", images, t, num),
        passes("ahead", pairs, num, reads=2, writes=1.5, kernels=5),
        sort("worth", images, t, num),
        passes("targets", images * r * t, num, reads=2, writes=1, kernels=4),
        passes("weights", images * r, num, reads=6, writes=6, kernels=8),
        passes("weigh", images * t * c, num, reads=2, writes=2, kernels=2),
        gather("merged", images * 2 * r, c, num, kernels=2),
        passes("scatter_add", images * (t + r) * c, num, reads=2, writes=1, kernels=6),
        gather("survivors", images * (t - r), c, num),
        passes("divide", images * (t - r) * c, num, kernels=1),
    ]


def _plan(given: MethodInput) -> MethodPlan:
    tower, images = given.tower, given.batch_size * given.crops
    wanted = merges_per_layer(
        "crossget", given.keep, patches=tower.patches, layers=tower.num_layers,
        depth=tower.deepest, r=R.of(given),
    )  # fmt: skip
    t: Num = tower.tokens + 1
    spans, ops = [], []
    for layer, asked in enumerate(wanted[: given.vision_layers]):
        r = least(asked, (t - PROTECTED) // 2)
        spans.append(LayerSpan(1, t, t, t - r, materialised=True))
        ops += in_layer(_graph_ops(given, images, t, r), layer, images > 0)
        t = t - r
    return tower_plan("crossget", given, spans, t, ops)


INFO = MethodInfo(
    name="crossget",
    place="vision-layers",
    source="Shi et al. 2024, CrossGET, arXiv 2305.17455; sdc17/CrossGET",
    summary="merge r tokens per vision layer on a complete graph, guided by a learned token",
    formula="t + 1 tokens, t -> t - r per layer; 2 t^2 e FLOPs per layer, scores written out",
    complexity="O(t^2 e) per layer, no fused attention",
    schedule=_plan,
    needs=frozenset({"clip_keys", "clip_attention", "cross_token"}),
    needs_text="keys and attention of every vision layer, learned cross tokens, fine-tuning",
    keep_meaning="patch tokens left when the features are read; None merges r per layer",
    default_text="13 tokens merged per layer: 278 of 577 reach the projector",
    options=(R, WEIGHTS),
    trained=True,
    published=("r=13: 278 tokens, 48 %",),
    needs_class_token=True,
    fused_attention=False,
)
