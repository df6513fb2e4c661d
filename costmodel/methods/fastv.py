"""FastV: at the entry of language-model layer K keep the image tokens the last token attends to.

Source: Chen et al., ECCV 2024 (arXiv 2403.06764) and pkunlp-icler/FastV. Layers 0..K-1 see and cache
every token, layers K.. the kept ones: C(n) = 4nd^2 + 2n^2 d + 2ndm MACs per layer in the paper, so
1 - [K C(n) + (T-K) C(n')] / (T C(n)) of them are saved.

Own FLOPs: 2 h s e for the last query row of layer K-1, recomputed so that the layer keeps its fused
attention; variant="paper" averages over all rows, 2 h s^2 e. At K = 0 the program keeps random tokens and
looks at nothing.

variant="released" prices what the program asks for: the attention of layer K-1 as a whole, so its scores are
written out, softmaxed in float32, returned, and averaged over heads to look at one row.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from costmodel.methods.info import MethodInfo
from costmodel.methods.keep import kept_count
from costmodel.methods.options import Option, whole
from costmodel.methods.pieces import passes, product, sequence_gather, sort
from costmodel.methods.plan import MethodInput, MethodPlan, between_layers

if TYPE_CHECKING:
    from costmodel.quantities import OpCost

#: The paper's setting, R = 50 % after layer 2.
RATIO, LAYER = 0.5, 2
SEED = Option("seed", 0, whole(0), "randomness of K = 0")


def _plan(given: MethodInput) -> MethodPlan:
    text, num = given.model.text, given.precision.text
    b, n = given.batch_size, given.visual_tokens
    kept = kept_count("fastv", given.keep, n)
    s, runs = given.text_tokens + n, (n > 0) * 1
    ops: list[OpCost] = []
    if given.layer:
        h, e = text.num_heads, text.head_dim
        paper = given.variant == "paper"
        # q[b, h, rows, e] @ k[b, h, s, e]^T of layer K-1
        rows, which = (s, "all_rows") if paper else (1, "last_row")
        ops += [
            product(f"{which}_scores", b * h, rows, s, e, num, runs),
            passes(f"{which}_softmax", b * h * rows * s, num, reads=3, writes=2, kernels=3, flops=7,
                   count=runs),
        ]  # fmt: skip
        if paper:
            ops += [passes("received", b * h * s * s, num, writes=0, kernels=4, count=runs)]
    ops += [
        sort("rank", b, n, num, runs),
        passes("indices", b * s, num, reads=4, writes=4, kernels=8, flops=0, count=runs),
        *sequence_gather(given, kept, runs),
    ]
    return between_layers(given, (given.layer or 0,), (n, kept), ops, {})


def _released(given: MethodInput) -> list[OpCost]:
    """Layer K-1 with its scores written out, as the program asks for its attention: no FLOPs beside it."""
    text, num, b = given.model.text, given.precision.text, given.batch_size
    n, s = given.visual_tokens, given.text_tokens + given.visual_tokens
    kept, runs = kept_count("fastv", given.keep, n), (n > 0) * 1
    h, maps = text.num_heads, (n > 0) * bool(given.layer)
    return [
        # Scores written, scaled, masked, softmaxed in float32 and cast back, then read by the values.
        passes("scores_written_out", b * h * s * s, num, reads=7, writes=7, kernels=5, flops=7,
               count=maps),
        # The mean over the heads of the whole map, of which the last row is looked at.
        passes("mean_heads", b * h * s * s, num, writes=1 / h, count=maps),
        sort("rank", 1, n, num, runs),
        passes("indices", s, num, reads=2, writes=2, kernels=6, flops=0, count=runs),
        sort("order", 1, s, num, runs),
        *sequence_gather(given, kept, runs),
    ]  # fmt: skip


_PROGRAM = MethodInfo(
    name="fastv",
    place="llm-layer",
    source="Chen et al. 2024, FastV, arXiv 2403.06764; pkunlp-icler/FastV",
    summary="at LLM layer K keep the image tokens the last token attends to at layer K-1",
    formula="n tokens in layers 0..K-1, round(keep n) from K on; 2 h s e FLOPs",
    complexity="O(h s e) once",
    schedule=_plan,
    needs=frozenset({"llm_attention_row"}),
    needs_text="one attention row of layer K-1, recomputed beside the fused kernel",
    default_keep=RATIO,
    default_text="half of the tokens",
    default_layer=LAYER,
    takes_layer=True,
    variants=("program", "paper", "released"),
    released=_released,
    options=(SEED,),
    published=("K=2, R=50 % (keep 0.5)", "demo: K=3, R=75 % (keep 0.25)"),
    asks_question=True,
    recomputes="the last query's row of scores in layer K-1",
)
INFO = replace(
    _PROGRAM,
    forms={"paper": replace(_PROGRAM, needs=frozenset({"llm_attention_full"}), together=True)},
)
