"""Calls: each op with the kernels it launched, its class, its sizes, and where it stands.

A product's sizes come from the op that the kernel's launch lies in; how many tokens a sequence has, from
the op outside it, which still sees batch and sequence apart (`aten::linear` on [b, s, k] runs as
`aten::addmm` on [b s, k]).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from profiling.explaining.naming import ATTENTION, OTHER, class_of_kernel, class_of_op
from profiling.tracing.kernels import stage_of
from profiling.tracing.linking import links

if TYPE_CHECKING:
    from collections.abc import Sequence

    from profiling.tracing.events import Event, Trace

#: Names of element types in traces -> dtype labels of the cost model, and bytes per element.
DTYPES = {
    "c10::BFloat16": ("bf16", 2),
    "c10::Half": ("fp16", 2),
    "float": ("fp32", 4),
    "double": ("fp64", 8),
    "c10::Float8_e4m3fn": ("fp8", 1),
    "c10::Float8_e4m3fnuz": ("fp8", 1),
    "c10::Float8_e5m2": ("fp8", 1),
    "signed char": ("int8", 1),
    "unsigned char": ("int8", 1),
    "bool": ("int8", 1),
    "short": ("int16", 2),
    "int": ("int32", 4),
    "long int": ("int64", 8),
    "long": ("int64", 8),
}


#: Where `is_causal` stands among the inputs of an op of PyTorch.
_CAUSAL_AT = {
    "scaled_dot_product_attention": 5,
    "_scaled_dot_product_flash_attention": 4,
    "_scaled_dot_product_flash_attention_for_cpu": 4,
    "_scaled_dot_product_efficient_attention": 6,
    "_scaled_dot_product_cudnn_attention": 6,
    "_scaled_dot_product_fused_attention_overrideable": 5,
    "_flash_attention_forward": 8,
}


class Product(NamedTuple):
    """A matrix product out[m, n] = a[m, k] x b[k, n], `batch` of them.

    Attributes:
        m: rows: tokens of all sequences.
        n: columns.
        k: what is summed over.
        batch: products in one call; 1 for a product with weights.
        tokens: tokens of one sequence.
        weights: whether b is a weight, shared by all rows.
    """

    m: int
    n: int
    k: int
    batch: int
    tokens: int
    weights: bool


class Attention(NamedTuple):
    """A fused attention's sizes: batch, queries, keys, heads, KV heads, head dim, and the mask."""

    batch: int
    q_len: int
    kv_len: int
    heads: int
    kv_heads: int
    head_dim: int
    causal: bool


@dataclass(slots=True)
class Call:
    """One op and the device work that it launched.

    Attributes:
        ops: the ops around the launch, outermost first; the last launched it.
        works: kernels and copies.
        launches: the calls into the runtime.
        op_class: its class.
        stage: the stage whose range it lies in; None where the trace has no such ranges.
        product: its sizes if it is a product.
        attention: its sizes if it is a fused attention.
        scores: whether it works on attention's scores, which are written out.
        place: its place among the calls.
    """

    ops: tuple[Event, ...]
    works: list[Event]
    launches: list[Event]
    op_class: str = OTHER
    stage: str | None = None
    product: Product | None = None
    attention: Attention | None = None
    scores: bool = False
    place: int = 0

    @property
    def name(self) -> str:
        """The name of the op that launched the work."""
        return self.ops[-1].name

    @property
    def kernel_us(self) -> float:
        """Microseconds of its kernels."""
        return math.fsum(work.length_us for work in self.works if work.kind != "copy")

    @property
    def time_us(self) -> float:
        """Microseconds of all its device work."""
        return math.fsum(work.length_us for work in self.works)


class Unlinked(NamedTuple):
    """Device work that no op was found for, with its launch if that is in the trace."""

    work: Event
    launch: Event | None


def calls_of(trace: Trace) -> tuple[list[Call], list[Unlinked]]:
    """Return the calls of a trace in the order the host made them, and the work linked to none.

    Args:
        trace: from `profiling.tracing.events`.
    """
    calls: dict[int, Call] = {}
    unlinked: list[Unlinked] = []
    for link in links(trace):
        ops = tuple(visit.event for visit in link.stack if not visit.is_range)
        if not ops:
            unlinked.append(Unlinked(link.work, link.launch))
            continue
        call = calls.get(id(ops[-1]))
        if call is None:
            call = calls[id(ops[-1])] = Call(ops, [], [], stage=stage_of(link.stack))
        call.works.append(link.work)
        if link.launch is not None:
            call.launches.append(link.launch)
    found = sorted(calls.values(), key=lambda call: call.ops[-1].begin_us)
    for place, call in enumerate(found):
        call.place = place
        call.op_class = _class_of(call)
        if call.op_class in ("gemm", "conv"):
            call.product = product_of(call.ops) if call.op_class == "gemm" else None
        elif call.op_class in ATTENTION:
            call.attention = attention_of(call.ops)
            call.op_class = _kind_of_attention(call.attention)
    _mark_written_scores(found)
    _mark_norm_chains(found)
    return found, unlinked


def _class_of(call: Call) -> str:
    found = class_of_op(call.name)
    if found is None:
        # A custom op may be named by its kernel, or by the op around it.
        kernels = (class_of_kernel(work.name) for work in call.works if work.kind == "kernel")
        around = (class_of_op(op.name) for op in reversed(call.ops[:-1]))
        found = next((each for each in (*kernels, *around) if each is not None), None)
    elif found == "copy" and any(class_of_op(op.name) == "embedding" for op in call.ops[:-1]):
        # Rows of a table are picked by the op inside.
        found = "embedding"
    return found or OTHER


def _kind_of_attention(found: Attention | None) -> str:
    if found is None:
        return "attention_prefill"
    if found.q_len == 1 and found.kv_len > 1:
        return "attention_decode"
    return "attention_prefill" if found.causal else "attention_encoder"


def _mark_written_scores(calls: Sequence[Call]) -> None:
    """Give products of activations around a softmax the class of attention: its scores are written out.

    What lies between two products with weights is one piece of a layer.
    """
    piece: list[Call] = []
    for call in calls:
        if call.product is not None and call.product.weights:
            _mark_piece(piece)
            piece = []
        else:
            piece.append(call)
    _mark_piece(piece)


def _mark_piece(piece: Sequence[Call]) -> None:
    if not any(call.op_class == "softmax" for call in piece):
        return
    written: set[tuple[int, int]] = set()
    for call in piece:
        product = call.product
        if product is None:
            continue
        written.add((product.m, product.n))
        # Scores have the keys as columns, values as what is summed over: a decode has one row.
        keys = max(product.n, product.k)
        call.op_class = "attention_decode" if product.m == 1 < keys else "attention_prefill"
    for call in piece:
        call.scores = (
            call.op_class == "softmax"
            or call.product is not None
            or any(size[-2:] in written and len(size) > 2 for size in shapes(call.ops[-1]))
        )


#: What an RMSNorm is made of in plain code, from the cast before it to the product with its weight.
_CHAIN_BEFORE = ("pow", "mean", "add", "copy_", "to", "_to_copy")
_CHAIN_BEHIND = ("mul", "copy_", "to", "_to_copy")


def _mark_norm_chains(calls: Sequence[Call]) -> None:
    """Give the kernels of an RMSNorm in plain code the class of a norm: its square root tells it."""
    for call in calls:
        if call.name != "aten::rsqrt":
            continue
        for step, names, most in ((-1, _CHAIN_BEFORE, 4), (1, _CHAIN_BEHIND, 3)):
            for distance in range(1, most + 1):
                place = call.place + step * distance
                if not 0 <= place < len(calls):
                    break
                outer = {op.name.rpartition("::")[2] for op in calls[place].ops}
                if not outer & set(names):
                    break
                calls[place].op_class = "norm"
        call.op_class = "norm"


def _sizes(value: Any) -> tuple[int, ...] | None:
    """Return one input's sizes, None where they are no list of numbers."""
    if isinstance(value, tuple) and value and all(type(size) is int for size in value):
        return value
    return None


def shapes(op: Event) -> list[tuple[int, ...]]:
    """Return the sizes of an op's tensors, those in lists included; scalars are left out."""
    found = []
    for value in op.sizes:
        if isinstance(value, tuple) and value and isinstance(value[0], tuple):
            found += [size for each in value if (size := _sizes(each)) is not None]
        elif (size := _sizes(value)) is not None:
            found.append(size)
    return found


def product_of(ops: Sequence[Event]) -> Product | None:
    """Return the sizes of a matrix product from the op that ran it and the ops around it."""
    inner = _product(ops[-1])
    if inner is None:
        return next((found for op in reversed(ops) if (found := _product(op)) is not None), None)
    for op in reversed(ops[:-1]):
        outer = _product(op)
        # The op outside sees batch and sequence apart, if it is the same product.
        if outer is not None and outer.m * outer.batch == inner.m * inner.batch:
            inner = inner._replace(
                tokens=outer.tokens, weights=inner.weights if inner.batch == 1 else outer.weights
            )
    return inner


def _product(op: Event) -> Product | None:
    name, sizes = op.name.rpartition("::")[2], [_sizes(value) for value in op.sizes]
    if name in ("addmm", "baddbmm", "addbmm", "addmv"):
        sizes = sizes[1:]
    if len(sizes) < 2 or sizes[0] is None or sizes[1] is None:
        return None
    a, b = sizes[0], sizes[1]
    tokens = a[-2] if len(a) > 2 else math.prod(a[:-1])
    if name == "linear":
        if len(b) != 2 or a[-1] != b[1]:
            return None
        return Product(math.prod(a[:-1]), b[0], b[1], 1, tokens, True)
    if len(a) < 2 or len(b) < 2 or a[-1] != b[-2]:
        return None
    if len(b) == 2:
        return Product(math.prod(a[:-1]), b[1], b[0], 1, tokens, True)
    batch = max(math.prod(a[:-2]), math.prod(b[:-2]))
    return Product(a[-2], b[-1], b[-2], batch, tokens, False)


def attention_of(ops: Sequence[Event]) -> Attention | None:
    """Return the sizes of a fused attention from the ops around its launch.

    `aten::scaled_dot_product_attention` and what it chooses take [b, h, s, e]; the kernels' own ops and
    those of the flash-attn package take [b, s, h, e].
    """
    for op in ops:
        found = [size for value in op.sizes[:3] if (size := _sizes(value)) is not None]
        if class_of_op(op.name) not in ATTENTION or len(found) < 3:
            continue
        q, k = found[0], found[1]
        if len(q) != 4 or len(k) != 4 or q[-1] != k[-1]:
            continue
        heads_first = "scaled_dot_product" in op.name
        h, s = (q[1], q[2]) if heads_first else (q[2], q[1])
        kv, t = (k[1], k[2]) if heads_first else (k[2], k[1])
        return Attention(q[0], s, t, h, kv, q[-1], _is_causal(op, s, t))
    return None


def _is_causal(op: Event, s: int, t: int) -> bool:
    """Whether the mask is causal: it says so itself, or a mask of s x t is handed to it."""
    # Behind `is_causal` stands `enable_gqa` or `return_debug_mask`, which say nothing of a mask.
    at = _CAUSAL_AT.get(op.name.rpartition("::")[2])
    if "True" in (op.values if at is None else op.values[at : at + 1]):
        return True
    return any(
        size is not None and size[-2:] == (s, t) and len(size) > 2
        for size in map(_sizes, op.sizes[3:])
    )


def dtype_of(op: Event) -> tuple[str, int]:
    """Return the dtype label and the bytes per element of an op's first tensor of known type."""
    return next((DTYPES[each] for each in op.types if each in DTYPES), ("", 0))
