"""SparseVLM: behind three language-model layers drop image tokens, and recycle some of them.

Source: Zhang et al., ICML 2025 (arXiv 2410.04417) and Gumpest/SparseVLMs, v1.5. Behind layers 2, 6 and
15 a fixed number of image tokens stay: those with most attention from the text tokens that relate to the
image. Of the tokens dropped, the best 30 %, p of them, are clustered into p // 10 + 1 new ones. Where no
more tokens are there than would stay, nothing happens.

Own FLOPs, n image tokens, t text tokens behind them, s = n + t, d width, h heads of e: 2 n t d once;
per layer that drops 2 t s h e for the rows of the text, 2 c p d for the means of c clusters. Their
distances, 2 p^2 d executed in one kernel, are not counted by `torch.utils.flop_counter`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.methods.info import MethodInfo
from costmodel.methods.keep import kept_count, share
from costmodel.methods.llm_ranking import cut_layers, picked, rotated, weighing_warnings
from costmodel.methods.options import LAYER_LIST, Option, Values, layer_indices, optional
from costmodel.methods.pieces import gather, in_layer, passes, product, sort
from costmodel.methods.plan import MethodInput, MethodPlan, between_layers
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from costmodel.quantities import Num, OpCost

COUNT = 192


def counts(value: object) -> tuple[int, ...]:
    """A list of integers >= 1, or its text.

    >>> counts("66,30,17")
    (66, 30, 17)
    """
    found = layer_indices(value)
    if min(found) < 1:
        raise ValueError(value)
    return found


#: The tokens are dropped behind these layers.
LAYERS = Option("layers", (2, 6, 15), LAYER_LIST, "tokens are dropped behind them")
COUNTS = Option(
    "counts",
    None,
    optional(Values(counts, "a list of integers >= 1, one per layer,")),
    "image tokens kept behind each layer; None is the published list for keep",
    for_keep=True,
)
#: Published setting -> image tokens that stay behind each of them, the recycled ones not counted.
KEEP_LISTS = {
    192: (300, 200, 110),
    128: (303, 110, 36),
    96: (238, 48, 26),
    64: (66, 30, 17),
}
RECYCLED_SHARE = 0.3


def kept_lists(keep: Any) -> list[Num]:
    """Return the image tokens kept behind each layer, for a published setting or an array of them.

    >>> kept_lists(128)
    [303, 110, 36]
    """
    if not isinstance(keep, np.ndarray):
        return list(KEEP_LISTS[int(keep)])
    cases = [keep == count for count in KEEP_LISTS]
    return [np.select(cases, counts, 0) for counts in zip(*KEEP_LISTS.values(), strict=True)]


def counts_by_layer(
    keep: Any, layers: Sequence[int], counts: Sequence[int] | None, depth: int
) -> dict[int, Num]:
    """Return the layers that a cut comes before, each with the image tokens that stay.

    Tokens are dropped behind `layers` of a model of `depth` layers; without `counts` for them, `keep` is a
    published setting or an array of such.

    Raises:
        InvalidInputError: a layer the model does not have, not one count per layer.

    >>> counts_by_layer(64, (2, 6, 15), None, 32)
    {3: 66, 7: 30, 16: 17}
    """
    cuts = cut_layers("sparsevlm", layers, depth, behind=True)
    kept = kept_lists(keep) if counts is None else list(counts)
    if not len(kept) == len(layers) == len(cuts):
        raise InvalidInputError(
            f"sparsevlm acts behind layers {list(layers)} and was given the counts {kept}; "
            "give every layer once, and one count per layer, counts=..."
        )
    # Counts belong to the layers as they were given.
    ordered = sorted(zip(layers, kept, strict=True), key=lambda pair: pair[0])
    return dict(zip(cuts, (count for _, count in ordered), strict=True))


def _rows_of_text(given: MethodInput, s: Num, count: Num) -> list[OpCost]:
    """The attention of all text tokens over the whole sequence, in one layer, for one sequence."""
    text, num = given.model.text, given.precision.text
    h, k, e, t = text.num_heads, text.num_kv_heads, text.head_dim, given.text_tokens
    return [
        rotated("keys", given, s, k, count),
        rotated("queries", given, t, h, count),
        product("text_rows", k, h // k * t, s, e, num, count),
        # Scaled, masked, softmaxed into float32, and back; then the mean over heads and raters.
        passes("softmax", h * t * s, num, reads=6, writes=5, kernels=6, flops=8, count=count),
        passes("mean_heads", h * t * s, num, writes=1 / h, count=count),
        passes("mean_raters", t * s, num, reads=2, writes=1, kernels=5, flops=2, count=count),
    ]


def _recycling(given: MethodInput, n: Num, pruned: Num, p: Num, count: Num) -> list[OpCost]:
    """Density-peak clusters of the best tokens dropped, in float32, for one sequence."""
    num, d = given.precision.text, given.model.text.hidden_size
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


def _plan(given: MethodInput) -> MethodPlan:
    text, num = given.model.text, given.precision.text
    b, t, d = given.batch_size, given.text_tokens, text.hidden_size
    left = [given.visual_tokens]
    runs = (left[0] > 0) * 1
    ops = [
        product("rating", 1, left[0], t, d, num, b * runs),
        passes("raters", left[0] * t, num, reads=3, writes=2, kernels=14, flops=6, count=b * runs),
    ]
    if COUNTS.of(given) is None:
        kept_count("sparsevlm", given.keep, left[0])  # refuses more than there are
    cuts_at = counts_by_layer(given.keep, LAYERS.of(given), COUNTS.of(given), text.num_layers)
    for layer, wanted in cuts_at.items():
        n = left[-1]
        cuts = (n > wanted) * 1
        pruned = (n - wanted) * cuts
        p = share(RECYCLED_SHARE, pruned, "down")
        recycles = (p > 0) * 1
        after = n - pruned + (p // 10 + 1) * recycles
        s, rows = t + after, b * cuts
        work = [
            *_rows_of_text(given, t + n, rows),
            *picked(given, n, n - pruned, rows),
            *_recycling(given, n, pruned, p, rows * recycles),
            passes("join_states", s * d, num, kernels=3, flops=0, count=rows),
            # Also where nothing is dropped: the batch is laid out anew.
            passes("lay_out", b * s, num, reads=8, writes=8, kernels=20, flops=0, count=runs),
            passes("batch", b * s * d, num, writes=2, kernels=2, flops=0, count=runs),
            gather("kept_positions", b * s, 2 * text.head_dim, num, runs, kernels=3),
        ]
        ops += in_layer(work, layer - 1)
        left.append(after)
    note = "keep names a published setting; all text is taken to stand behind the image"
    plan = between_layers(given, cuts_at, left, ops, {"sparsevlm": note})
    return plan._replace(warnings=weighing_warnings("sparsevlm", given))


INFO = MethodInfo(
    name="sparsevlm",
    schedule=_plan,
    place="llm-layer",
    summary="behind three LLM layers keep what the text looks at, and recycle some of the rest",
    formula="tokens behind layers 2, 6, 15 by table, p // 10 + 1 recycled of p; 2ntd, and "
    "2tshe + 2cpd FLOPs a layer",
    complexity="O(n t d + h e t s + p^2 d) at three layers",
    source="Zhang et al. 2025, SparseVLM, arXiv 2410.04417; Gumpest/SparseVLMs v1.5",
    default_text="the setting called 192: 300, 200 and 110 tokens, and the recycled ones",
    needs_text="rows of the text tokens in the attention of layers 2, 6 and 15, recomputed",
    published=(
        "192: 300, 200, 110",
        "128: 303, 110, 36",
        "96: 238, 48, 26",
        "64: 66, 30, 17",
    ),
    needs=frozenset({"llm_attention_rows", "llm_states"}),
    keep_meaning="a published setting, named by its mean number of tokens over the layers",
    default_keep=COUNT,
    rounding=None,
    keep_choices=tuple(KEEP_LISTS),
    options=(LAYERS, COUNTS),
    asks_question=True,
    together=True,
    recomputes="the text tokens' rows of scores behind three layers",
)
