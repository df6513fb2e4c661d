"""DivPrune: after the projector, or at a language-model layer.

Source: Alvar et al., CVPR 2025 (arXiv 2503.02175) and vbdi/divprune. K = round(ratio x n) tokens of n
stay, chosen one after the other: each pick waits for the one before, so K small kernels in a row.

Own FLOPs, n tokens of width d: 2 n^2 d for the distances. The authors' program computes that product
twice (2 x 2.718 GFLOP at 576 tokens of width 4096). With the 24.159 GFLOP of a projector that still
sees all tokens this is the 29.595 GFLOP one paper's profiler reports as DivPrune's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.methods.counts import kept_count, share
from costmodel.methods.pieces import gather, passes, product, sort
from costmodel.methods.registry import MethodCost, MethodPlan
from costmodel.methods.requirements import items_of
from costmodel.schedule import LayerSpan

if TYPE_CHECKING:
    from costmodel.methods.registry import MethodRequest
    from costmodel.quantities import Num, OpCost

#: SUBSET_RATIO of the authors' run script.
RATIO = 0.098
#: Kernels of one pick: argmax, gather of its row, running minimum.
PICK_KERNELS = 3


def divprune_ops(request: MethodRequest, lists: Num, n: Num, kept: Num, runs: Num) -> list[OpCost]:
    """Return DivPrune's own ops.

    Args:
        request: the request.
        lists: token lists in the batch.
        n: tokens per list.
        kept: tokens kept per list.
        runs: 1 where there is anything to reduce, else 0.
    """
    num, d = request.precision.projector, request.model.text.hidden_size
    pairs = lists * n * n
    return [
        passes("normalise", lists * n * d, num, reads=2, writes=1, kernels=3, flops=3, count=runs),
        product("distance", lists, n, n, d, num, runs),
        passes("complement", pairs, num, kernels=1, count=runs),
        passes("first_pick", pairs, num, reads=1, writes=0, kernels=3, count=runs),
        # Argmax reads the closest distances, the gather one row, the minimum both.
        passes("pick", lists * n, num, reads=4, writes=2, kernels=PICK_KERNELS, flops=2,
               count=kept * runs),
        sort("order", lists, kept, num, runs),
        gather("kept_tokens", lists * kept, d, num, runs),
    ]  # fmt: skip


def _plan(request: MethodRequest) -> MethodPlan:
    layers = request.model.text.num_layers
    keep = RATIO if request.keep is None else request.keep
    if not request.layer:  # layer 0 sees what the projector gives
        per_sample, lists, n, runs = items_of(request)
        kept = kept_count("divprune", keep, n)
        tokens = per_sample * kept * runs
        spans: tuple[LayerSpan, ...] = (LayerSpan(layers, tokens),)
    else:
        n = request.visual_tokens
        lists, runs = request.batch_size, (n > 0) * 1
        kept = kept_count("divprune", keep, n)
        spans = (LayerSpan(request.layer, n), LayerSpan(layers - request.layer, kept))
    ops = divprune_ops(request, lists, n, kept, runs)
    return MethodPlan(spans, request.projected_tokens, None, tuple(ops))


def _program_flops(request: MethodRequest) -> Num:
    """Two n x n x d products, where one is enough."""
    _, lists, n, runs = items_of(request)
    return 2 * (2 * lists * n * n * request.model.text.hidden_size) * runs


METHODS = {
    "divprune": MethodCost(
        name="divprune",
        schedule=_plan,
        place="after-projector",
        summary="keep the tokens farthest from each other (greedy max-min cosine distance)",
        formula="K = round(keep n) tokens; 2 n^2 d FLOPs, K dependent picks",
        complexity="O(n^2 d + K n), K sequential steps",
        source="Alvar et al. 2025, DivPrune, arXiv 2503.02175; vbdi/divprune",
        default_keep=f"{RATIO} of the tokens, {share(RATIO, 576)} of 576",
        published=("keep 0.098 before layer 0", "paper: also at layers 1 to 3 (Table 3)"),
        takes_layer=True,
        program_flops=_program_flops,
    )
}
