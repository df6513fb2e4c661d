"""The repeated layer, found in the trace itself.

A transformer repeats one list of products with weights. The (n, k) of those products, in the order they
were called, are searched for a pattern that follows itself: its length is the products of a layer, how
often it follows itself the layers, their m the tokens. The width is what the layer begins and ends with:
the k of some of its products and the n of others. Where no sizes were recorded, the names of the kernels
are searched instead: then the number of layers is known, their width and tokens are not.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from profiling.explaining.naming import class_of_kernel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from profiling.explaining.calls import Call
    from profiling.tracing.events import Event

#: Products with weights of the largest layer that is looked for.
MOST_PRODUCTS = 48
#: Repeats that are less than this are no pattern, by products and by kernels' names.
LEAST_LAYERS = 2
LEAST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Run:
    """Layers that follow one another with the same tokens.

    Attributes:
        count: layers.
        width: hidden width; None where no sizes were recorded.
        tokens: tokens of one sequence in each of them, likewise.
        batch: sequences.
        ffn: width inside the feed-forward part.
        gated: whether two products lead into it.
        products: products with weights of one layer.
        begin: place of the first call of the first layer.
        end: place behind the last call of the last.
        time_us: microseconds of their kernels, in all of them together.
        whole: layers of the whole stack that this is a part of.
    """

    count: int
    width: int | None
    tokens: int | None
    batch: int | None
    ffn: int | None
    gated: bool
    products: int
    begin: int
    end: int
    time_us: float
    whole: int


def find_layers(calls: Sequence[Call]) -> list[Run]:
    """Return the layers of a trace in the order they ran."""
    products = [call for call in calls if call.product is not None and call.product.weights]
    signatures = [(call.product.n, call.product.k) for call in products if call.product]
    runs: list[Run] = []
    for begin, period, count in repeats(signatures, MOST_PRODUCTS, LEAST_LAYERS, _is_layer):
        stack: list[Call] = []
        for first in range(begin, begin + period * count, period):
            layer = products[first : first + period]
            # A second pass of the same stack begins where ids or patches are embedded again.
            if stack and _embeds(calls[stack[-1].place + 1 : layer[0].place]):
                runs += _runs(calls, stack, period)
                stack = []
            stack += layer
        runs += _runs(calls, stack, period)
    return runs


def _embeds(calls: Sequence[Call]) -> bool:
    return any(call.op_class in ("embedding", "conv") for call in calls)


def repeats(
    items: Sequence[Any], longest: int, least: int, accepted: Any
) -> list[tuple[int, int, int]]:
    """Return (begin, period, count) of the patterns that follow themselves, in their order.

    The shortest period wins; no item belongs to two patterns.

    Args:
        items: hashable things.
        longest: the longest period.
        least: the fewest repeats.
        accepted: whether a pattern is one.

    >>> repeats("xabcabcabcy", 4, 2, lambda pattern: True)
    [(1, 3, 3)]
    """
    codes: dict[Any, int] = {}
    numbers = np.array([codes.setdefault(item, len(codes)) for item in items], dtype=np.int64)
    free = np.ones(len(numbers), dtype=bool)
    found = []
    for period in range(1, min(longest, len(numbers) // least) + 1):
        same = (numbers[:-period] == numbers[period:]) & free[:-period] & free[period:]
        # Stretches in which every item equals the one a period later.
        edges = np.flatnonzero(np.diff(np.concatenate(([0], same.view(np.int8), [0]))))
        for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            count = (end - begin) // period + 1
            if count < least or not free[begin : begin + count * period].all():
                continue
            if accepted(items[begin : begin + period]):
                free[begin : begin + count * period] = False
                found.append((begin, period, count))
    return sorted(found)


def _is_layer(pattern: Sequence[tuple[int, int]]) -> bool:
    width = _width(pattern)
    return (
        len(set(pattern)) > 1
        and any(k == width for _, k in pattern)
        and any(n == width and k != width for n, k in pattern)
    )


def _width(pattern: Sequence[tuple[int, int]]) -> int:
    """Return the width that is most often both a product's input and a product's output."""
    ins, outs = Counter(k for _, k in pattern), Counter(n for n, _ in pattern)
    both = {size: ins[size] + outs[size] for size in ins if size in outs}
    return max(both, key=lambda size: both[size]) if both else 0


def _runs(calls: Sequence[Call], products: Sequence[Call], period: int) -> list[Run]:
    pattern = [(call.product.n, call.product.k) for call in products[:period] if call.product]
    width = _width(pattern)
    inner = [k for n, k in pattern if n == width and k != width]
    ffn = max(inner) if inner else None
    gated = sum(n == ffn and k == width for n, k in pattern) > 1 or any(
        ffn is not None and n == 2 * ffn and k == width for n, k in pattern
    )
    begins, end = _layer_begins(calls, products, period)
    layers = list(zip(begins, [*begins[1:], end], strict=True))
    attentions = [call for call in calls[begins[0] : end] if call.attention is not None]
    whole = len(layers)
    runs: list[Run] = []
    for index, (first, last) in enumerate(layers):
        product = products[index * period].product
        assert product is not None  # noqa: S101 - chosen by it; narrows the type
        tokens, rows = product.tokens, product.m
        seen = next(
            (c.attention for c in attentions if first <= c.place < last and c.attention), None
        )
        if tokens == rows and seen is not None and seen.batch * seen.q_len == rows:
            tokens = seen.q_len
        spent = sum(call.time_us for call in calls[first:last])
        before = runs[-1] if runs else None
        if before is not None and (before.tokens, before.batch) == (tokens, rows // tokens):
            runs[-1] = Run(
                before.count + 1, width, tokens, before.batch, ffn, gated, period, before.begin,
                last, before.time_us + spent, whole,
            )  # fmt: skip
        else:
            batch = rows // max(tokens, 1)
            runs.append(Run(1, width, tokens, batch, ffn, gated, period, first, last, spent, whole))
    return runs


def _layer_begins(
    calls: Sequence[Call], products: Sequence[Call], period: int
) -> tuple[list[int], int]:
    """Return the places where the layers begin, and where the last one ends.

    Between the last product of a layer and the first of the next stand the end of the one (a residual
    add) and the beginning of the other (a norm). The same calls, as far as they are there, belong to the
    first layer before its first product, and to the last layer behind its last.
    """
    firsts = [call.place for call in products[::period]]
    lasts = [call.place for call in products[period - 1 :: period]]
    between = [call.name for call in calls[lasts[0] + 1 : firsts[1]]] if len(firsts) > 1 else []
    head = 0
    while head < len(between) and firsts[0] - head > 0:
        if calls[firsts[0] - head - 1].name != between[-1 - head]:
            break
        head += 1
    tail = 0
    while tail < len(between) - head and lasts[-1] + tail + 1 < len(calls):
        if calls[lasts[-1] + tail + 1].name != between[tail]:
            break
        tail += 1
    return [place - head for place in firsts], lasts[-1] + tail + 1


def find_named_layers(kernels: Sequence[Event]) -> list[Run]:
    """Return the layers that the names of kernels tell, where no sizes were recorded.

    Each layer attends once: by one kernel of fused attention, or several with no product between them, or
    by a softmax. Layers of one stack are as many kernels apart, give or take a half.
    """
    classes = [class_of_kernel(kernel.name) for kernel in kernels]
    mark = "attention_prefill" if "attention_prefill" in classes else "softmax"
    marks: list[int] = []
    products = LEAST_LAYERS
    for place, found in enumerate(classes):
        products += found == "gemm"
        if found == mark and products >= LEAST_LAYERS:
            marks.append(place)
            products = 0
    runs: list[Run] = []
    begin = 0
    while begin < len(marks):
        end = begin + 1
        apart: list[int] = []
        while end < len(marks):
            distance = marks[end] - marks[end - 1]
            usual = sorted(apart)[len(apart) // 2] if apart else distance
            if not usual / 1.5 <= distance <= usual * 1.5:
                break
            apart.append(distance)
            end += 1
        if len(apart) + 1 >= LEAST_NAMED:
            usual = sorted(apart)[len(apart) // 2]
            first = max(marks[begin] - usual // 2, runs[-1].end if runs else 0)
            last = min(marks[end - 1] + usual - (marks[begin] - first), len(kernels))
            spent = sum(kernel.length_us for kernel in kernels[first:last])
            count = len(apart) + 1
            runs.append(Run(count, None, None, None, None, False, 0, first, last, spent, count))
        begin = end
    return runs
