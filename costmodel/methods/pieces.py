"""The pieces a method's own work is made of: products, passes, sorts, gathers.

FLOPs are what `torch.utils.flop_counter` counts, so only `product` has any; passes, sorts and gathers
carry their arithmetic as vector work, their bytes and their kernels. Kernel counts are those of eager
PyTorch, read off the implementations in `token_reduction`; every plan runs a method's own work so.

Names that all methods share: `num` are the numerics of the module whose tensors an op reads, `count` how
often the op runs (0 leaves it out), n the tokens there are, `kept` those that stay, and `runs` is 1 where
there is anything to reduce, else 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.ops.linear import product as matrix_product
from costmodel.ops.pointwise import pointwise
from costmodel.quantities import Num, OpCost, op_cost

if TYPE_CHECKING:
    from collections.abc import Iterable

    from costmodel.methods.plan import MethodInput
    from costmodel.precision import Numerics

#: Bytes of an index; PyTorch's are 64-bit.
INDEX_BYTES = 8
#: Kernels of one `torch.sort`, `argsort` or `topk` over short rows.
SORT_KERNELS = 4
#: Kernels that look for NaN and infinity in what a method ranks by.
FINITE_KERNELS = 6


def product(name: str, b: Num, m: Num, n: Num, k: Num, num: Numerics, count: Num = 1) -> OpCost:
    """A batched product of two activations, [b, m, k] @ [b, k, n]: 2 b m n k FLOPs.

    Source: `torch.utils.flop_counter.bmm_flop`.

    >>> from costmodel.precision import parse_precision
    >>> op = product("distance", 1, 576, 576, 4096, parse_precision("fp16").text)
    >>> op.flops  # 2 x 576^2 x 4096
    2717908992
    """
    size = num.activation_bytes
    return matrix_product(
        name, num.attention_dtype, b, m, n, k, count,
        read_bytes=b * (m * k + k * n) * size, write_bytes=b * m * n * size,
    )  # fmt: skip


def passes(
    name: str,
    elements: Num,
    num: Numerics,
    *,
    reads: float = 1,
    writes: float = 1,
    kernels: int = 1,
    flops: float = 1,
    count: Num = 1,
) -> OpCost:
    """A chain of elementwise or reducing kernels over the `elements` values of a tensor.

    Each value is read and written `reads` and `writes` times and costs `flops` vector FLOPs in all; the chain
    has `kernels` kernels.
    """
    size = num.activation_bytes
    chain = pointwise(
        name, num, read=reads * size, write=writes * size, flops_per_element=flops, kernels=kernels
    )
    return chain(elements, count)


def sort(name: str, rows: Num, n: Num, num: Numerics, count: Num = 1) -> OpCost:
    """A sort or top-k of `rows` short lists with its indices: n log2 n comparisons each."""
    steps = np.log2(np.maximum(n, 2)) if isinstance(n, np.ndarray) else float(np.log2(max(n, 2)))
    size = num.activation_bytes + INDEX_BYTES
    return op_cost(
        name, "pointwise", num.attention_dtype, count, vector_flops=rows * n * steps,
        activation_read_bytes=rows * n * size, activation_write_bytes=rows * n * size,
        kernels=SORT_KERNELS,
    )  # fmt: skip


def gather(name: str, rows: Num, d: Num, num: Numerics, count: Num = 1, kernels: int = 1) -> OpCost:
    """Copy `rows` rows of width d by their indices."""
    size = num.activation_bytes
    return op_cost(
        name, "copy", num.attention_dtype, count,
        activation_read_bytes=rows * (d * size + INDEX_BYTES),
        activation_write_bytes=rows * d * size, kernels=kernels,
    )  # fmt: skip


def in_layer(ops: Iterable[OpCost], layer: int, runs: Any = None) -> list[OpCost]:
    """Name ops after the layer they run in; `runs` says whether they run at all, None leaves their counts."""
    named = [op._replace(name=f"{op.name}[{layer}]") for op in ops]
    return named if runs is None else [op._replace(count=runs * 1) for op in named]


def sequence_gather(given: MethodInput, kept: Num, runs: Num) -> list[OpCost]:
    """Return the copies that shorten hidden states and position angles to the kept tokens."""
    text, num = given.model.text, given.precision.text
    rows = given.batch_size * (given.text_tokens + kept)
    return [
        gather("kept_states", rows, text.hidden_size, num, runs),
        gather("kept_positions", rows, 2 * text.head_dim, num, runs, kernels=3),
    ]
