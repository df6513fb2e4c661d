"""ATS: sample tokens by class attention and value norm inside some vision layers.

Source: Fayyaz et al., ECCV 2022 (arXiv 2111.15667) and adaptivetokensampling/ATS. In blocks 3 to 11
(DeiT-S's) the rows of the sampled tokens are gathered before they meet the values, so a layer's output
has as many rows as were sampled. How many distinct tokens the samples hit depends on the image.

Here `keep` is the expected number of tokens after the last of these blocks, and the count falls by the
same factor in each: this project's own choice, since no paper gives the counts per block. The default is
the 25 % at which PruMerge's Table 7 ran it on LLaVA-1.5.

The method has no FLOPs of its own. These blocks write their scores out, so the class token's row is there;
only the sampled rows meet the values, 2 m t c instead of 2 t^2 c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.methods.info import MethodInfo
from costmodel.methods.keep import greatest, least, share
from costmodel.methods.options import LAYER_LIST, Option, whole
from costmodel.methods.pieces import gather, in_layer, passes, sort
from costmodel.methods.tower import check_tower_layers, tower_plan
from costmodel.schedule import LayerSpan

if TYPE_CHECKING:
    from costmodel.methods.plan import MethodInput, MethodPlan
    from costmodel.quantities import Num

LAYERS = Option("layers", tuple(range(3, 12)), LAYER_LIST, "DeiT-S: blocks 3 to 11")
MINIMUM = Option("minimum", 8, whole(3), "fewest reference samples")
#: Share of the patches left, PruMerge's Table 7.
RATIO = 0.25


def expected_tokens(patches: int, kept: Num, stage: int, stages: int) -> Num:
    """Return the patches left after `stage` of `stages` blocks that end at `kept`.

    >>> [expected_tokens(576, 144, stage, 2) for stage in range(3)]
    [576, 288, 144]
    """
    left = patches * (kept / patches) ** (stage / stages)
    return np.rint(left) if isinstance(left, np.ndarray) else round(left)


def expected_count(keep: Any, patches: int) -> Num:
    """Return the patches expected in the end: no reference samples are too many, or too few.

    >>> expected_count(197, 196), expected_count(0.001, 196)
    (196, 1)
    """
    asked = share(keep, patches) if isinstance(keep, float) else keep
    return least(greatest(asked, 1), patches)


def _plan(given: MethodInput) -> MethodPlan:
    tower, num = given.tower, given.precision.vision
    images, c = given.batch_size * given.crops, tower.hidden_size
    kept = expected_count(given.keep, tower.patches)
    layers = sorted(set(LAYERS.of(given)))
    check_tower_layers("ats", layers, tower.num_layers)
    acting = [layer for layer in layers if layer < given.vision_layers]
    t: Num = tower.tokens
    spans, ops = [], []
    for layer in range(given.vision_layers):
        if layer not in acting:
            spans.append(LayerSpan(1, t))
            continue
        stage = acting.index(layer) + 1
        left = 1 + expected_tokens(tower.patches, kept, stage, len(acting))
        spans.append(LayerSpan(1, t, left, left, query_tokens=left, materialised=True))
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
        ops += in_layer(work, layer, images > 0)
        t = left
    note = {"ats_counts": "expected: falls by the same factor in each of its blocks"}
    return tower_plan("ats", given, spans, t, ops, note)


INFO = MethodInfo(
    name="ats",
    place="vision-layers",
    source="Fayyaz et al. 2022, ATS, arXiv 2111.15667; adaptivetokensampling/ATS",
    summary="sample tokens by class attention and value norm inside the vision layers",
    formula="expected tokens keep after blocks 3..11; no own FLOPs, scores written out",
    complexity="O(t c + t^2) per block, no fused attention there",
    schedule=_plan,
    needs=frozenset({"clip_attention", "clip_values"}),
    needs_text="the class token's attention and the values of its vision layers",
    keep_meaning="reference samples; as many tokens at most",
    default_keep=1.0,
    expected_keep=RATIO,
    default_text="25 % of the patches expected in the end, as in PruMerge's Table 7",
    options=(LAYERS, MINIMUM),
    published=("DeiT-S: 197 reference samples in blocks 3 to 11", "25 % on LLaVA-1.5"),
    needs_class_token=True,
    samples=True,
    count_known=False,
    fused_attention=False,
)
