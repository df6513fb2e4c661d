"""ToMe: merge r pairs of similar tokens in every vision layer, between attention and MLP.

Source: Bolya et al., ICLR 2023 (arXiv 2210.09461) and facebookresearch/ToMe. Of t tokens at most
(t - 1) // 2 pairs merge (t // 2 without a class token). The default r = 13 is CrossGET's on the same
tower; with keep, merges are spread evenly over the layers before the features, earlier ones first.

Own FLOPs per layer and crop, t tokens, e width of a head: 2 ceil(t/2) floor(t/2) e for the cosines of
even with odd tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.methods.counts import greatest, kept_count, least
from costmodel.methods.pieces import gather, passes, product, sort
from costmodel.methods.registry import MethodCost, MethodPlan
from costmodel.methods.requirements import vision_parts
from costmodel.methods.tower import feature_depth, tower_plan
from costmodel.schedule import LayerSpan
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from costmodel.methods.registry import MethodRequest
    from costmodel.quantities import Num, OpCost

#: Pairs merged per layer by default.
PAIRS = 13


def merges_per_layer(name: str, keep: Any, patches: int, layers: int) -> list[Num]:
    """Return the merges per layer that leave `keep` patch tokens after `layers` layers.

    Formula: what is left to merge is spread evenly, earlier layers first; a layer merges at most half.

    Args:
        name: the method, for messages.
        keep: a count, an array of counts, or a ratio.
        patches: patch tokens at the start.
        layers: layers that merge.

    Raises:
        InvalidInputError: fewer tokens than halving in every layer can reach.

    >>> merges_per_layer("tome", 10, 16, 4)
    [2, 2, 1, 1]
    """
    target = kept_count(name, keep, patches)
    now: Num = patches
    merges = []
    for layer in range(layers):
        later = layers - layer - 1
        even = -((target - now) // (later + 1))
        merged = least(greatest(even, now - target * 2**later), now // 2)
        merges.append(merged)
        now = now - merged
    if np.any(now > target):
        raise InvalidInputError(
            f"{name}: keep={keep} asks for fewer tokens than {layers} layers that merge at most "
            f"half of them can leave of {patches}; give a larger keep"
        )
    return merges


def _matching_ops(request: MethodRequest, images: Num, t: Num, r: Num) -> list[OpCost]:
    tower, _ = vision_parts("tome", request.model)
    num, c, e = request.precision.vision, tower.hidden_size, tower.head_dim
    even, odd = (t + 1) // 2, t // 2
    return [
        passes("mean_keys", images * t * e, num, reads=c / e, writes=1, kernels=1, flops=c / e),
        passes("normalise", images * t * e, num, reads=3, writes=1, kernels=2, flops=3),
        product("similarity", images, even, odd, e, num),
        passes("best_match", images * even * odd, num, reads=1, writes=0, kernels=2),
        sort("rank", images, even, num),
        passes("indices", images * even, num, reads=4, writes=4, kernels=4, flops=0),
        passes("weigh", images * t * c, num, reads=1, writes=1, kernels=1),
        gather("unmerged", images * (even - r), c, num),
        gather("merged", images * r, c, num),
        passes("scatter_add", images * (odd + r) * c, num, reads=2, writes=1, kernels=2),
        passes("concatenate", images * (t - r) * c, num, reads=2, writes=2, kernels=2),
        passes("sizes", images * t, num, reads=4, writes=4, kernels=7),
    ]


def _plan(request: MethodRequest) -> MethodPlan:
    tower, _ = vision_parts("tome", request.model)
    layers, depth = request.vision_layers, feature_depth("tome", request)
    images = request.batch_size * request.crops
    if request.keep is None:
        wanted: list[Num] = [PAIRS] * layers
    else:
        wanted = merges_per_layer("tome", request.keep, tower.patches, depth)
        wanted += [0] * (layers - depth)
    entering: list[Num] = [tower.tokens]
    spans, ops = [], []
    for layer, asked in enumerate(wanted):
        t = entering[-1]
        r = least(asked, (t - tower.has_cls) // 2)
        spans.append(LayerSpan(1, t, t, t - r))
        entering.append(t - r)
        runs = (r > 0) * (images > 0) * 1
        ops += [
            op._replace(name=f"{op.name}[{layer}]", count=runs)
            for op in _matching_ops(request, images, t, r)
        ]
    return tower_plan("tome", request, spans, entering, ops, {})


METHODS = {
    "tome": MethodCost(
        name="tome",
        schedule=_plan,
        place="vision-layers",
        summary="merge r pairs of similar tokens in every vision layer",
        formula="t -> t - r per layer; 2 ceil(t/2) floor(t/2) e FLOPs per layer",
        complexity="O(t^2 e) per layer",
        source="Bolya et al. 2023, Token Merging, arXiv 2210.09461; facebookresearch/ToMe",
        default_keep="13 pairs per layer: 278 of 576 patches are left after 23 layers",
        needs="the keys of every vision layer",
        published=("ViT-L: r=8", "25 % of 576 in PruMerge's Table 7 (keep 144)"),
    )
}
