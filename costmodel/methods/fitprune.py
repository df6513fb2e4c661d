"""FitPrune: delete a fitted number of image tokens after the attention of every language-model layer.

Source: Ye et al., AAAI 2025 (arXiv 2409.10197) and ywh187/FitPrune. Layer l caches and attends to the
tokens from before its deletion; o_proj and the FFN run on the rest. The deletions per layer are the
program's, for 576 tokens and 32 layers, by reduction of visual FLOPs; for another depth or count they
are stretched over relative depth, this project's own choice.

`keep` is the share of visual FLOPs left, one of the shipped schemes. The full attention map of every
layer that deletes is needed, so those layers write their scores out; own FLOPs 4 s^2 per layer and
sample for the two sums over its rows (one product with two rows of weights).
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.methods.info import MethodInfo
from costmodel.methods.keep import first, of_rows, share, some
from costmodel.methods.llm_ranking import weighing_warnings
from costmodel.methods.options import Option, Values, layer_indices, optional
from costmodel.methods.pieces import gather, in_layer, passes, product, sequence_gather, sort
from costmodel.methods.plan import MethodInput, MethodPlan
from costmodel.schedule import LayerSpan
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from costmodel.quantities import Num, OpCost

#: Image tokens the schemes were fitted on.
SCHEME_TOKENS = 576
#: Share of visual FLOPs left by default: the 60 % scheme, the middle of those the paper reports.
SHARE = 0.4
SCHEME = Option(
    "scheme",
    None,
    optional(Values(layer_indices, "a list of integers >= 0")),
    "tokens deleted in each layer; None is the shipped scheme for keep",
    for_keep=True,
)


@cache
def shipped_schemes() -> dict[int, tuple[int, ...]]:
    """Return the program's schemes: percent of visual FLOPs saved to deletions per layer.

    >>> sum(shipped_schemes()[60]), len(shipped_schemes()[60])
    (449, 32)
    """
    text = files("costmodel.methods").joinpath("data/fitprune_llava15_7b.json").read_text("utf-8")
    return {int(key): tuple(value) for key, value in json.loads(text)["schemes"].items()}


def scheme_of(keep: float) -> tuple[int, ...]:
    """Return the shipped scheme that leaves a share `keep` of the visual FLOPs.

    Raises:
        InvalidInputError: no scheme for that share; lists those there are.

    >>> scheme_of(0.4)[:4]
    (14, 33, 89, 36)
    """
    known = shipped_schemes()
    reduction = round((1.0 - keep) * 100)
    if reduction in known and abs((1.0 - keep) * 100 - reduction) < 1e-6:
        return known[reduction]
    there_is = ", ".join(f"{1 - key / 100:g}" for key in sorted(known) if key)
    raise InvalidInputError(
        f"fitprune's keep is the share of visual FLOPs left; there is a scheme for {there_is}, "
        f"not for {keep!r}; fit one with token_reduction.fitprune.search_scheme and give it as scheme="
    )


def tokens_by_layer(scheme: Sequence[int], layers: int, n: Num) -> list[Num]:
    """Return the image tokens entering each layer, and after them those leaving the last.

    `scheme` has the deletions per layer, fitted on `SCHEME_TOKENS` image tokens. Formula: n less the share
    deleted up to relative depth l/L, interpolated linearly and rounded; exact where depth and count are the
    scheme's.

    Raises:
        InvalidInputError: a scheme that deletes more tokens than it was fitted on.

    >>> tokens_by_layer((96, 192), 4, 12)[1:], tokens_by_layer(scheme_of(0.4), 32, 576)[-1]
    ([11, 10, 8, 6], 127)
    """
    if sum(scheme) > SCHEME_TOKENS:
        raise InvalidInputError(f"the scheme deletes {sum(scheme)} of {SCHEME_TOKENS} image tokens")
    gone = np.cumsum([0, *scheme]) / SCHEME_TOKENS
    depths = np.arange(layers + 1) * len(scheme) / layers
    shares = np.interp(depths, range(len(gone)), gone)
    return [n - share(float(deleted), n) for deleted in shares]


def scheme_for(keep: Any, given: Sequence[int] | None, layers: int, n: Num) -> list[Num]:
    """Return the deletions per layer: those given for this model, or the shipped ones for `keep`, stretched.

    Raises:
        InvalidInputError: no scheme for the share, or one given that does not fit model or tokens.

    >>> scheme_for(0.4, None, 32, 576)[:4], scheme_for(None, (2, 3), 2, 10)
    ([14, 33, 89, 36], [2, 3])
    """
    if given is None:
        left = tokens_by_layer(scheme_of(keep), layers, n)
        return [before - after for before, after in pairwise(left)]
    there = n > 0
    wrong = ((sum(given) > n) & there) | (len(given) != layers)
    if some(wrong):
        error = InvalidInputError(
            f"the scheme deletes {sum(given)} tokens in {len(given)} layers; this prompt has "
            f"{first(n, wrong):g} visual tokens and the language model {layers} layers"
        )
        raise of_rows(error, wrong)
    return [deleted * there for deleted in given]


def _plan(given: MethodInput) -> MethodPlan:
    text, num = given.model.text, given.precision.text
    b, h = given.batch_size, text.num_heads
    scheme = SCHEME.of(given)
    deletions = scheme_for(given.keep, scheme, text.num_layers, given.visual_tokens)
    note = "scheme of 576 tokens and 32 layers, stretched where the model differs"
    if scheme is not None:
        note = "the deletions per layer are given"
    spans: list[LayerSpan] = []
    ops: list[OpCost] = []
    after = given.visual_tokens
    for layer, deleted in enumerate(deletions):
        before, after = after, after - deleted
        deletes = deleted > 0
        spans.append(LayerSpan(1, before, after, materialised=deletes))
        if not np.any(deletes):
            continue
        # In arrays, scenarios that delete nothing here multiply the cost by zero.
        s = given.text_tokens + before
        kept_rows = b * (given.text_tokens + after)
        work = [
            passes("strongest_head", b * h * s * s, num, reads=1, writes=0, kernels=1),
            passes("widen", b * s * s, num, reads=1, writes=3, kernels=2, flops=0),
            product("received", b, 2, s, s, num),
            passes("scores", b * before, num, reads=4, writes=3, kernels=4),
            sort("rank", b, before, num),
            passes("indices", b * s, num, reads=4, writes=4, kernels=8, flops=0),
            gather("kept_heads", kept_rows, h * text.head_dim, num),
            *sequence_gather(given, after, 1),
        ]
        ops += in_layer(work, layer, deletes)
    return MethodPlan(
        tuple(spans), given.projected_tokens, None, tuple(ops), {"fitprune": note},
        weighing_warnings("fitprune", given),
    )  # fmt: skip


INFO = MethodInfo(
    name="fitprune",
    place="llm-layer",
    source="Ye et al. 2025, FitPrune, arXiv 2409.10197; ywh187/FitPrune",
    summary="delete a fitted number of image tokens after attention in every LLM layer",
    formula="a scheme of deletions per layer; KV and attention before, o_proj and FFN after each; "
    "4 s^2 FLOPs per deleting layer",
    complexity="O(h s^2) per layer, scores written out",
    schedule=_plan,
    needs=frozenset({"llm_attention_full"}),
    needs_text="the full attention map of every layer, so no fused attention there",
    keep_meaning="share of the visual tokens' FLOPs that is left",
    default_keep=SHARE,
    default_text="40 % of the visual FLOPs (the 60 % scheme)",
    rounding=None,
    keep_kind="ratio",
    keep_choices=(0.9, 0.8, 0.7, 0.6, 0.5, 0.45, 0.4, 0.3, 0.2, 0.1),
    options=(SCHEME,),
    published=("visual FLOPs reduced by 10 to 90 % (keep 0.9 to 0.1)", "449 of 576 at 60 %"),
    asks_question=True,
    together=True,
    fused_attention=False,
)
