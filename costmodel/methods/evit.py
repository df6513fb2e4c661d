"""EViT: at three vision layers keep the patches the class token attends to, fuse the rest into one.

Source: Liang et al., ICLR 2022 (arXiv 2202.07800) and youweiliang/evit. At layers 3, 6 and 9 (counted
from 0), between attention and MLP: ceil(keep x n) of n patches stay, one fused token comes on top and
counts as a patch at the next of them.

Own FLOPs per crop at each of them, t tokens, c width: 2 t c for the class token's row of the attention,
recomputed beside the fused kernel, and 2 (n - k) c for the fused token; none of it with fuse=False.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.methods.info import MethodInfo
from costmodel.methods.keep import kept_count, least
from costmodel.methods.options import FLAG, LAYER_LIST, Option
from costmodel.methods.pieces import gather, in_layer, passes, product, sort
from costmodel.methods.tower import check_tower_layers, tower_plan
from costmodel.schedule import LayerSpan

if TYPE_CHECKING:
    from costmodel.methods.plan import MethodInput, MethodPlan
    from costmodel.quantities import Num

LAYERS = Option("layers", (3, 6, 9), LAYER_LIST, "counted from 0")
FUSE = Option("fuse", True, FLAG, "append the fused token")
RATIO = 0.7


def _plan(given: MethodInput) -> MethodPlan:
    tower, num = given.tower, given.precision.vision
    c, h, e = tower.hidden_size, tower.num_heads, tower.head_dim
    images = given.batch_size * given.crops
    keep, layers, fuse = given.keep, LAYERS.of(given), FUSE.of(given)
    check_tower_layers("evit", layers, tower.num_layers)
    t: Num = tower.tokens
    spans, ops = [], []
    for layer in range(given.vision_layers):
        if layer not in layers:
            spans.append(LayerSpan(1, t))
            continue
        n = t - 1
        # A count that an earlier layer reached keeps all of it.
        asked = keep if isinstance(keep, float) or layer == min(layers) else least(keep, n)
        kept = kept_count("evit", asked, n, "up")
        after = t - (kept < n) * (n - kept - fuse)
        spans.append(LayerSpan(1, t, t, after))
        work = [
            product("class_scores", images * h, 1, t, e, num),
            passes("class_softmax", images * h * t, num, reads=3, writes=2, kernels=3, flops=6),
            sort("rank", images, n, num),
            passes("indices", images * t, num, reads=4, writes=4, kernels=8, flops=0),
            gather("kept_patches", images * (kept + 1), c, num),
        ]
        if fuse:
            work += [
                gather("fused_patches", images * (n - kept), c, num),
                product("fuse", images, 1, c, n - kept, num),
                passes("concatenate", images * after * c, num),
            ]
        ops += in_layer(work, layer, images > 0)
        t = after
    return tower_plan("evit", given, spans, t, ops)


INFO = MethodInfo(
    name="evit",
    place="vision-layers",
    source="Liang et al. 2022, EViT, arXiv 2202.07800; youweiliang/evit",
    summary="keep the patches the class token attends to, fuse the rest into one, three times",
    formula="n -> ceil(keep n) + 1 at layers 3, 6, 9; 2tc + 2(n-k)c FLOPs at each",
    complexity="O(t c) at three layers",
    schedule=_plan,
    needs=frozenset({"clip_attention"}),
    needs_text="the class token's attention at three vision layers",
    keep_meaning="patches kept at each of its layers",
    default_keep=RATIO,
    default_text="70 % of the patches at each of its layers: 201 of 576 are left",
    rounding="up",
    options=(LAYERS, FUSE),
    published=("keep 0.7 (also 0.5 to 0.9)",),
    needs_class_token=True,
    recomputes="the class token's row of scores in three vision layers",
)
