"""EViT: at three vision layers keep the patches the class token attends to, fuse the rest into one.

Source: Liang et al., ICLR 2022 (arXiv 2202.07800) and youweiliang/evit. At layers 3, 6 and 9 (counted
from 0), between attention and MLP: ceil(keep x n) of n patches stay, one fused token comes on top and
counts as a patch at the next of them.

Own FLOPs per crop at each of them, t tokens, c width: 2 t c for the class token's row of the attention,
recomputed beside the fused kernel, and 2 (n - k) c for the fused token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from costmodel.methods.counts import kept_count, least
from costmodel.methods.pieces import gather, passes, product, sort
from costmodel.methods.registry import MethodCost, MethodPlan
from costmodel.methods.requirements import vision_parts
from costmodel.methods.tower import check_tower_layers, tower_plan
from costmodel.schedule import LayerSpan

if TYPE_CHECKING:
    from costmodel.methods.registry import MethodRequest
    from costmodel.quantities import Num, OpCost

LAYERS = (3, 6, 9)
RATIO = 0.7


def _class_row(request: MethodRequest, images: Num, t: Num) -> list[OpCost]:
    """The class token's attention row, all heads."""
    tower, _ = vision_parts("evit", request.model)
    num, h, e = request.precision.vision, tower.num_heads, tower.head_dim
    return [
        product("class_scores", images * h, 1, t, e, num),
        passes("class_softmax", images * h * t, num, reads=3, writes=2, kernels=3, flops=6),
    ]


def _plan(request: MethodRequest) -> MethodPlan:
    tower, _ = vision_parts("evit", request.model)
    num, c = request.precision.vision, tower.hidden_size
    images = request.batch_size * request.crops
    keep = RATIO if request.keep is None else request.keep
    check_tower_layers("evit", LAYERS, tower.num_layers)
    entering: list[Num] = [tower.tokens]
    spans, ops = [], []
    for layer in range(request.vision_layers):
        t = entering[-1]
        if layer not in LAYERS:
            spans.append(LayerSpan(1, t))
            entering.append(t)
            continue
        n = t - 1
        # A count larger than what an earlier layer left keeps all of it.
        kept = kept_count("evit", keep if isinstance(keep, float) else least(keep, n), n, "up")
        after = np.where(kept < n, kept + 2, t) if isinstance(kept, np.ndarray) else kept + 2
        after = after if isinstance(kept, np.ndarray) or kept < n else t
        spans.append(LayerSpan(1, t, t, after))
        entering.append(after)
        runs = (images > 0) * 1
        work = [
            *_class_row(request, images, t),
            sort("rank", images, n, num),
            passes("indices", images * t, num, reads=4, writes=4, kernels=8, flops=0),
            gather("kept_patches", images * (kept + 1), c, num),
            gather("fused_patches", images * (n - kept), c, num),
            product("fuse", images, 1, c, n - kept, num),
            passes("concatenate", images * after * c, num),
        ]
        ops += [op._replace(name=f"{op.name}[{layer}]", count=runs) for op in work]
    return tower_plan("evit", request, spans, entering, ops, {})


METHODS = {
    "evit": MethodCost(
        name="evit",
        schedule=_plan,
        place="vision-layers",
        summary="keep the patches the class token attends to, fuse the rest into one, three times",
        formula="n -> ceil(keep n) + 1 at layers 3, 6, 9; 2tc + 2(n-k)c FLOPs at each",
        complexity="O(t c) at three layers",
        source="Liang et al. 2022, EViT, arXiv 2202.07800; youweiliang/evit",
        default_keep="70 % of the patches at each of its layers: 201 of 576 are left",
        needs="the class token's attention at three vision layers",
        published=("keep 0.7 (also 0.5 to 0.9)",),
        needs_class_token=True,
    )
}
