"""SparseVLM: behind three language-model layers drop image tokens, and recycle some of them.

Source: Zhang et al., ICML 2025 (arXiv 2410.04417) and Gumpest/SparseVLMs, v1.5. Behind layers 2, 6 and
15 a fixed number of image tokens stay: those that text tokens which speak of the image attend to. Of the
tokens dropped, the best 30 %, p of them, are clustered into p // 10 + 1 new ones. Where fewer tokens are
there than would stay, nothing happens.

Own FLOPs, n image tokens, t text tokens behind them, s = n + t, d width, h heads of e: 2 n t d once;
per layer that drops 2 t s h e for the rows of the text, 2 c p d for the means of c clusters. Their
distances, 2 p^2 d executed in one kernel, are not counted by `torch.utils.flop_counter`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.methods.counts import share
from costmodel.methods.llm_ranking import picked, rotated
from costmodel.methods.pieces import gather, passes, product, sort
from costmodel.methods.registry import MethodCost, MethodPlan
from costmodel.schedule import LayerSpan
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from costmodel.methods.registry import MethodRequest
    from costmodel.quantities import Num, OpCost

COUNT = 192
#: The tokens are dropped behind these layers.
LAYERS = (2, 6, 15)
#: Published setting -> image tokens that stay behind each of them, the recycled ones not counted.
KEEP_LISTS = {
    192: (300, 200, 110),
    128: (303, 110, 36),
    96: (238, 48, 26),
    64: (66, 30, 17),
}
RECYCLED_SHARE = 0.3


def kept_lists(keep: Any) -> list[Num]:
    """Return the image tokens kept behind each layer.

    Args:
        keep: a published setting or an array of them.

    Raises:
        InvalidInputError: another keep.

    >>> kept_lists(128)
    [303, 110, 36]
    """
    values = np.atleast_1d(keep)
    unknown = values[~np.isin(values, list(KEEP_LISTS))]
    if isinstance(keep, float) or unknown.size:
        given = keep if isinstance(keep, float) else unknown[0]
        raise InvalidInputError(
            f"sparsevlm is defined for keep in {', '.join(map(str, KEEP_LISTS))}; given {given:g}"
        )
    if not isinstance(keep, np.ndarray):
        return list(KEEP_LISTS[int(keep)])
    cases = [keep == count for count in KEEP_LISTS]
    return [np.select(cases, counts, 0) for counts in zip(*KEEP_LISTS.values(), strict=True)]


def _rows_of_text(request: MethodRequest, s: Num, count: Num) -> list[OpCost]:
    """The attention of all text tokens over the whole sequence, in one layer, for one sequence."""
    text, num = request.model.text, request.precision.text
    h, k, e, t = text.num_heads, text.num_kv_heads, text.head_dim, request.text_tokens
    return [
        rotated("keys", request, s, k, count),
        rotated("queries", request, t, h, count),
        product("text_rows", k, h // k * t, s, e, num, count),
        # Scaled, masked, softmaxed into float32, and back; then the mean over heads and raters.
        passes("softmax", h * t * s, num, reads=6, writes=5, kernels=6, flops=8, count=count),
        passes("mean_heads", h * t * s, num, writes=1 / h, count=count),
        passes("mean_raters", t * s, num, reads=2, writes=1, kernels=5, flops=2, count=count),
    ]


def _recycling(request: MethodRequest, n: Num, pruned: Num, p: Num, count: Num) -> list[OpCost]:
    """Density-peak clusters of the best tokens dropped, in float32, for one sequence."""
    num, d = request.precision.text, request.model.text.hidden_size
    clusters = p // 10 + 1
    distance = product("distance", 1, p, p, d, num, count)
    return [
        sort("pruned", 1, n, num, count),
        sort("best_pruned", 1, pruned, num, count),
        gather("recycled_states", p, d, num, count),
        passes("widen", p * d, num, writes=2, flops=0, count=count),
        distance._replace(flops=0),
        sort("neighbours", p, p, num, count),
        passes("density_peaks", p * p, num, reads=10, writes=7, kernels=12, flops=6, count=count),
        sort("centres", 1, p, num, count),
        passes("join", clusters * p, num, reads=8, writes=6, kernels=8, flops=2, count=count),
        product("means", 1, clusters, d, p, num, count),
        passes("divide", clusters * d, num, reads=4, writes=3, kernels=3, count=count),
    ]


def _plan(request: MethodRequest) -> MethodPlan:
    text, num = request.model.text, request.precision.text
    if text.num_layers <= LAYERS[-1] + 1:
        raise InvalidInputError(
            f"sparsevlm acts behind layers {', '.join(map(str, LAYERS))}, and this language model "
            f"has layers 0 to {text.num_layers - 1}"
        )
    b, t, d = request.batch_size, request.text_tokens, text.hidden_size
    left = [request.visual_tokens]
    runs = (left[0] > 0) * 1
    ops = [
        product("rating", 1, left[0], t, d, num, b * runs),
        passes("raters", left[0] * t, num, reads=3, writes=2, kernels=14, flops=6, count=b * runs),
    ]
    wanted_lists = kept_lists(COUNT if request.keep is None else request.keep)
    for layer, wanted in zip(LAYERS, wanted_lists, strict=True):
        n = left[-1]
        cuts = (n > wanted) * 1
        pruned = (n - wanted) * cuts
        p = share(RECYCLED_SHARE, pruned, "down")
        recycles = (p > 0) * 1
        after = n - pruned + (p // 10 + 1) * recycles
        s, rows = t + after, b * cuts
        work = [
            *_rows_of_text(request, t + n, rows),
            *picked(request, n, n - pruned, rows),
            *_recycling(request, n, pruned, p, rows * recycles),
            passes("join_states", s * d, num, kernels=3, flops=0, count=rows),
            # Also where nothing is dropped: the batch is laid out anew.
            passes("lay_out", b * s, num, reads=8, writes=8, kernels=20, flops=0, count=runs),
            passes("batch", b * s * d, num, writes=2, kernels=2, flops=0, count=runs),
            gather("kept_positions", b * s, 2 * text.head_dim, num, runs, kernels=3),
        ]
        ops += [op._replace(name=f"{op.name}[{layer}]") for op in work]
        left.append(after)
    cuts_before = (0, *(layer + 1 for layer in LAYERS), text.num_layers)
    depths = [after - before for before, after in pairwise(cuts_before)]
    spans = tuple(LayerSpan(*pair) for pair in zip(depths, left, strict=True))
    notes = {
        "sparsevlm": "keep names a published setting; all text is taken to stand behind the image"
    }
    return MethodPlan(spans, request.projected_tokens, None, tuple(ops), notes)


METHODS = {
    "sparsevlm": MethodCost(
        name="sparsevlm",
        schedule=_plan,
        place="llm-layer",
        summary="behind three LLM layers keep what the text looks at, and recycle some of the rest",
        formula="tokens behind layers 2, 6, 15 by table, p // 10 + 1 recycled of p; 2ntd, and "
        "2tshe + 2cpd FLOPs a layer",
        complexity="O(n t d + h e t s + p^2 d) at three layers",
        source="Zhang et al. 2025, SparseVLM, arXiv 2410.04417; Gumpest/SparseVLMs v1.5",
        default_keep="the setting called 192: 300, 200 and 110 tokens, and the recycled ones",
        needs="rows of the text tokens in the attention of layers 2, 6 and 15, recomputed",
        published=(
            "192: 300, 200, 110",
            "128: 303, 110, 36",
            "96: 238, 48, 26",
            "64: 66, 30, 17",
        ),
    )
}
