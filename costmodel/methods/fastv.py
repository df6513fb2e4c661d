"""FastV: at the entry of language-model layer K keep the image tokens the last token attends to.

Source: Chen et al., ECCV 2024 (arXiv 2403.06764) and pkunlp-icler/FastV. Layers 0..K-1 see and cache
every token, layers K.. the kept ones: C(n) = 4nd^2 + 2n^2 d + 2ndm MACs per layer in the paper, so
1 - [K C(n) + (T-K) C(n')] / (T C(n)) of them are saved.

Own FLOPs: 2 h s e for the last query row of layer K-1, recomputed so that the layer keeps its fused
attention. At K = 0 the program keeps random tokens and looks at nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.methods.counts import kept_count
from costmodel.methods.pieces import gather, passes, product, sort
from costmodel.methods.registry import MethodCost, MethodPlan
from costmodel.schedule import LayerSpan

if TYPE_CHECKING:
    from costmodel.methods.registry import MethodRequest
    from costmodel.quantities import Num, OpCost

#: The paper's setting, R = 50 % after layer 2.
RATIO, LAYER = 0.5, 2


def sequence_gather(request: MethodRequest, kept: Num, runs: Num, count: int = 1) -> list[OpCost]:
    """Return the copies that shorten hidden states and position angles to the kept tokens.

    Args:
        request: the request.
        kept: visual tokens left.
        runs: 1 where there is anything to reduce, else 0.
        count: how often.
    """
    text, num = request.model.text, request.precision.text
    rows = request.batch_size * (request.text_tokens + kept)
    return [
        gather("kept_states", rows, text.hidden_size, num, count * runs),
        gather("kept_positions", rows, 2 * text.head_dim, num, count * runs, kernels=3),
    ]


def _plan(request: MethodRequest) -> MethodPlan:
    text, num = request.model.text, request.precision.text
    b, n = request.batch_size, request.visual_tokens
    layer = LAYER if request.layer is None else request.layer
    keep = RATIO if request.keep is None else request.keep
    kept = kept_count("fastv", keep, n)
    s, runs = request.text_tokens + n, (n > 0) * 1
    ops: list[OpCost] = []
    if layer > 0:
        h, e = text.num_heads, text.head_dim
        # q[b, h, 1, e] @ k[b, h, s, e]^T of layer K-1
        ops += [
            product("last_row_scores", b * h, 1, s, e, num, runs),
            passes("last_row_softmax", b * h * s, num, reads=3, writes=2, kernels=3, flops=7,
                   count=runs),
        ]  # fmt: skip
    ops += [
        sort("rank", b, n, num, runs),
        passes("indices", b * s, num, reads=4, writes=4, kernels=8, flops=0, count=runs),
        *sequence_gather(request, kept, runs),
    ]
    spans = (LayerSpan(layer, n), LayerSpan(text.num_layers - layer, kept))
    return MethodPlan(spans, request.projected_tokens, None, tuple(ops))


METHODS = {
    "fastv": MethodCost(
        name="fastv",
        schedule=_plan,
        place="llm-layer",
        summary="at LLM layer K keep the image tokens the last token attends to at layer K-1",
        formula="n tokens in layers 0..K-1, round(keep n) from K on; 2 h s e FLOPs",
        complexity="O(h s e) once",
        source="Chen et al. 2024, FastV, arXiv 2403.06764; pkunlp-icler/FastV",
        default_keep="half of the tokens",
        needs="one attention row of layer K-1, recomputed beside the fused kernel",
        published=("K=2, R=50 % (keep 0.5)", "demo: K=3, R=75 % (keep 0.25)"),
        takes_layer=True,
        default_layer=LAYER,
    )
}
