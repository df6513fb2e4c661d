"""Stages of a trace: from its own ranges, or from its layers, their order and what stands between them.

A trace of this project has ranges that name the stages. Anybody else's has none, so the layers found in it
say: layers behind a convolution over patches, whose attention is not causal, are the vision tower; layers
over one token of each sequence, whose keys are more, are decode steps; other layers with an embedding of
ids before them are the prefill if they attend causally or end in a product as wide as a vocabulary, else an
encoder of text. What stands between the tower and the next layers is the projector; from the first op that
ranks or picks tokens on it is the reduction. What no rule places is `total`, the work outside every stage.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from profiling.explaining.naming import ATTENTION
from profiling.records.measurement import TOTAL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from profiling.explaining.calls import Call
    from profiling.explaining.layers import Run

#: An encoder of text is no stage of a vision-language model.
ENCODER = "encoder"
#: What ranks or picks tokens: only a method does, between the tower and the layers.
_RANKS = re.compile(r"topk|sort|argmax|argmin|cdist|kthvalue|multinomial|msort|unique")
#: A vocabulary is wider than any embedding of positions that a tower looks up.
_LEAST_VOCABULARY = 8192


def place_calls(calls: Sequence[Call], runs: Sequence[Run]) -> list[str]:
    """Return the stage of every call."""
    if any(call.stage for call in calls):
        return [call.stage or TOTAL for call in calls]
    stages = [TOTAL] * len(calls)
    kinds = kinds_of(calls, runs)
    for index, (run, kind) in enumerate(zip(runs, kinds, strict=True)):
        stages[run.begin : run.end] = [kind] * (run.end - run.begin)
        before = runs[index - 1].end if index else 0
        for place, stage in _between(
            calls, before, run.begin, kinds[index - 1] if index else None, run, kind
        ):
            stages[place] = stage
    if runs:
        stages[runs[-1].end :] = [kinds[-1]] * (len(calls) - runs[-1].end)
    return stages


def kinds_of(calls: Sequence[Call], runs: Sequence[Run]) -> list[str]:
    """Return the stage of each run of layers."""
    kinds: list[str] = []
    before = 0
    for run in runs:
        inside, ahead = calls[run.begin : run.end], calls[before : run.begin]
        attends = {call.op_class for call in inside} & set(ATTENTION)
        if kinds and not ahead:
            # The rest of a stack whose tokens changed on the way.
            kinds.append(kinds[-1])
        elif run.tokens == 1 or attends == {"attention_decode"}:
            kinds.append("decode")
        elif (
            any(call.op_class == "conv" for call in ahead)
            or _is_patches(ahead, run)
            # A tower on the next picture, or its further blocks.
            or (kinds and kinds[-1] == "vision" and _alike(run, runs[len(kinds) - 1]))
        ):
            kinds.append("vision")
        else:
            ids = any(_is_lookup(call, run) for call in calls[: run.begin])
            causal = any(call.attention is not None and call.attention.causal for call in inside)
            plain = any(call.op_class == "attention_encoder" for call in inside)
            kinds.append(ENCODER if ids and plain and not causal and not run.gated else "prefill")
        before = run.end
    return kinds


def _alike(one: Run, other: Run) -> bool:
    return (one.width, one.ffn, one.gated) == (other.width, other.ffn, other.gated)


def _is_patches(ahead: Sequence[Call], run: Run) -> bool:
    """Whether patches are embedded by a product: k is three colours of square patches (and frames)."""
    for call in ahead:
        product = call.product
        if product is None or not product.weights or product.n != run.width:
            continue
        for frames in (1, 2):
            side = (product.k // (3 * frames)) ** 0.5
            if product.k % (3 * frames) == 0 and side in (14, 16, 32):
                return True
    return False


def _is_lookup(call: Call, run: Run) -> bool:
    """Whether a call looks ids up in a vocabulary as wide as the layers."""
    table = _table(call)
    return table[1:] == (run.width,) and table[0] >= _LEAST_VOCABULARY


def _between(
    calls: Sequence[Call], begin: int, end: int, before: str | None, run: Run, after: str
) -> list[tuple[int, str]]:
    """Return the stage of each call between the layers before a run (None for none) and the run."""
    span = range(begin, end)
    if before is None:
        # Ids may be looked up before the tower runs.
        lookups = [
            after == "vision"
            and calls[place].op_class == "embedding"
            and _table(calls[place])[:1] >= (_LEAST_VOCABULARY,)
            for place in span
        ]
        return [
            (place, "prefill" if early else after)
            for place, early in zip(span, lookups, strict=True)
        ]
    if after == "decode" or before == after or before != "vision":
        # A head, and the choice of the next token, belong to the layers they come from.
        return [(place, before) for place in span]
    bridge = [
        place for place in span
        if (product := calls[place].product) is not None and product.weights and product.n == run.width
    ]  # fmt: skip
    ranks = [place for place in span if _RANKS.search(calls[place].name)]
    lookup = next(
        (place for place in span if place > max(bridge, default=begin - 1)
         and _table(calls[place])[1:] == (run.width,)), end
    )  # fmt: skip
    own = range(0)
    if ranks:
        ahead = [place for place in bridge if place < ranks[0]]
        behind = (place for place in bridge if place > ranks[-1])
        # What ranks tokens stands behind the bridge, or before it.
        own = range(max(ahead) + 1, lookup) if ahead else range(begin, min(behind, default=lookup))
    return [
        (
            place,
            after if place >= lookup else "reduction" if place in own else "projector",
        )
        for place in span
    ]


def _table(call: Call) -> tuple[int, ...]:
    """Return the sizes of the table that a call looks up in; nothing for no look-up."""
    if call.op_class != "embedding" or not call.ops[-1].sizes:
        return ()
    found = call.ops[-1].sizes[0]
    whole = (
        isinstance(found, tuple) and len(found) == 2 and all(type(size) is int for size in found)
    )
    return found if whole else ()
