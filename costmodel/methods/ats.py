"""ATS: sample tokens by class attention and value norm inside some vision layers.

Source: Fayyaz et al., ECCV 2022 (arXiv 2111.15667) and adaptivetokensampling/ATS. In blocks 3 to 11
(DeiT-S's) the rows of the sampled tokens are gathered before they meet the values, so a layer's output
has as many rows as were sampled. How many distinct tokens the samples hit depends on the image.

Here `keep` is the expected number of tokens after the last of these blocks, and the count falls by the
same factor in each: this project's own choice, since no paper gives the counts per block. Without keep
it is the 25 % that PruMerge's Table 7 ran it at on LLaVA-1.5.

No FLOPs of its own: the class token's row is taken from the scores, which these blocks write out; the
values meet the sampled rows only, 2 m t c instead of 2 t^2 c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from costmodel.methods.counts import kept_count
from costmodel.methods.pieces import gather, passes, sort
from costmodel.methods.registry import MethodCost, MethodPlan
from costmodel.methods.requirements import vision_parts
from costmodel.methods.tower import check_tower_layers, tower_plan
from costmodel.schedule import LayerSpan

if TYPE_CHECKING:
    from costmodel.methods.registry import MethodRequest
    from costmodel.quantities import Num

LAYERS = tuple(range(3, 12))
#: Share of the patches left, PruMerge's Table 7.
RATIO = 0.25


def expected_tokens(patches: int, kept: Num, stage: int, stages: int) -> Num:
    """Return the patches left after `stage` of `stages` blocks that end at `kept`.

    >>> [expected_tokens(576, 144, stage, 2) for stage in range(3)]
    [576, 288, 144]
    """
    left = patches * (kept / patches) ** (stage / stages)
    return np.rint(left) if isinstance(left, np.ndarray) else round(left)


def _plan(request: MethodRequest) -> MethodPlan:
    tower, _ = vision_parts("ats", request.model)
    num, c = request.precision.vision, tower.hidden_size
    images = request.batch_size * request.crops
    keep = RATIO if request.keep is None else request.keep
    kept = kept_count("ats", keep, tower.patches)
    check_tower_layers("ats", LAYERS, tower.num_layers)
    acting = [layer for layer in LAYERS if layer < request.vision_layers]
    entering: list[Num] = [tower.tokens]
    spans, ops = [], []
    for layer in range(request.vision_layers):
        t = entering[-1]
        if layer not in acting:
            spans.append(LayerSpan(1, t))
            entering.append(t)
            continue
        stage = acting.index(layer) + 1
        left = 1 + expected_tokens(tower.patches, kept, stage, len(acting))
        spans.append(LayerSpan(1, t, left, left, query_tokens=left, materialised=True))
        entering.append(left)
        runs = (images > 0) * 1
        n = t - 1
        work = [
            passes("value_norms", images * t * c, num, reads=1, writes=0, kernels=2, flops=2),
            passes("scores", images * n, num, reads=6, writes=4, kernels=6),
            sort("rank", images, n, num),
            passes("cumulate", images * n, num, reads=6, writes=5, kernels=8),
            passes("nearest", images * n * n, num, reads=2, writes=1, kernels=4, flops=3),
            sort("distinct", images, n, num),
            passes("indices", images * n, num, reads=6, writes=6, kernels=10, flops=0),
            gather("sampled", images * left, 2 * c, num, kernels=3),
        ]
        ops += [op._replace(name=f"{op.name}[{layer}]", count=runs) for op in work]
    return tower_plan(
        "ats", request, spans, entering, ops,
        {"ats_counts": "expected: falls by the same factor in each of its blocks"},
    )  # fmt: skip


METHODS = {
    "ats": MethodCost(
        name="ats",
        schedule=_plan,
        place="vision-layers",
        summary="sample tokens by class attention and value norm inside the vision layers",
        formula="expected tokens keep after blocks 3..11; no own FLOPs, scores written out",
        complexity="O(t c + t^2) per block, no fused attention there",
        source="Fayyaz et al. 2022, ATS, arXiv 2111.15667; adaptivetokensampling/ATS",
        default_keep="25 % of the patches expected in the end, as in PruMerge's Table 7",
        needs="the class token's attention and the values of its vision layers",
        published=("DeiT-S: 197 reference samples in blocks 3 to 11", "25 % on LLaVA-1.5"),
        needs_class_token=True,
        samples=True,
    )
}
