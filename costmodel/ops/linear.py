"""Matrix products: with weights (linear layers, patch embeddings) and of two activations.

`linear` counts y[m, n] = x[m, k] @ w[k, n]; `convolution` a patch embedding, whose windows do not
overlap, as the implicit GEMM it is. Biases ride in the epilogue: their bytes count, their adds are
vector work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from costmodel.quantities import op_cost

if TYPE_CHECKING:
    from costmodel.precision import Numerics
    from costmodel.quantities import Num, OpCost


class RowsCost(Protocol):
    """A formula whose fixed half is done: from rows (or elements) and executions to an op."""

    def __call__(self, rows: Num, count: Num = 1, /) -> OpCost:
        """Return the op over so many rows."""


def product(
    name: str,
    dtype: str,
    batch: Num,
    m: Num,
    n: Num,
    k: Num,
    count: Num = 1,
    *,
    kv_read_bytes: Num = 0,
    read_bytes: Num,
    write_bytes: Num,
) -> OpCost:
    """A batch of matrix products of two activations, [m, k] @ [k, n]: 2 m n k FLOPs each.

    Source: `torch.utils.flop_counter.bmm_flop`.

    >>> product("scores", "fp16", 2, 10, 10, 4, read_bytes=320, write_bytes=400).flops
    1600
    """
    flops = 2 * batch * m * n * k
    return op_cost(
        name,
        "gemm",
        dtype,
        count,
        flops=flops,
        matrix_flops=flops,
        kv_read_bytes=kv_read_bytes,
        activation_read_bytes=read_bytes,
        activation_write_bytes=write_bytes,
        shape=(m, n, k, batch),
    )


def linear(
    name: str,
    k: int,
    n: int,
    numerics: Numerics,
    bias: bool = False,
    stored_bytes: float | None = None,
) -> RowsCost:
    """A linear layer over m rows: 2 m k n FLOPs.

    Weight-only quantisation adds 2 k n vector FLOPs (subtract, scale) to expand the weights.

    Args:
        name: the op's name.
        k: input width.
        n: output width.
        numerics: of the module.
        bias: whether it has one.
        stored_bytes: of the weights, where they are several matrices; None is one [k, n] matrix.

    >>> from costmodel.precision import parse_precision
    >>> op = linear("q_proj", 3, 5, parse_precision("fp16").text)(2)
    >>> op.flops, op.weight_bytes, op.activation_read_bytes, op.activation_write_bytes
    (60, 30, 12, 20)
    """
    size = numerics.activation_bytes
    if stored_bytes is None:
        stored_bytes = numerics.stored_bytes(k, n)
    return _with_weights(
        name,
        "gemm",
        numerics.label,
        (k, n),
        weight_bytes=stored_bytes + (n * size if bias else 0),
        expand=2 * k * n if numerics.dequantise else 0,
        row_bytes=(k * numerics.operand_bytes, n * size),
        bias=bias,
    )


def convolution(name: str, k: int, n: int, numerics: Numerics, bias: bool = False) -> RowsCost:
    """A patch embedding over m windows that do not overlap: 2 m k n FLOPs.

    Source: `torch.utils.flop_counter.conv_flop_count`.

    >>> from costmodel.precision import parse_precision
    >>> convolution("patch_embed", 588, 1024, parse_precision("fp16").vision)(576).flops
    693633024
    """
    size = numerics.activation_bytes
    return _with_weights(
        name,
        "conv",
        numerics.attention_dtype,
        (k, n),
        weight_bytes=(k + bias) * n * size,
        expand=0,
        row_bytes=(k * size, n * size),
        bias=bias,
    )


def distinct_experts(rows: Num, experts: int, chosen: int) -> Num:
    """Return how many experts any of some rows is expected to choose, all alike: E (1 - (1 - k/E)^n).

    Args:
        rows: n.
        experts: E.
        chosen: k of each row.

    >>> distinct_experts(1, 128, 8), round(distinct_experts(16, 128, 8), 1)
    (8.0, 82.4)
    """
    return experts * (1 - (1 - chosen / experts) ** rows)


def grouped(
    name: str, k: int, n: int, experts: int, chosen: int, numerics: Numerics, stored_bytes: float
) -> RowsCost:
    """Linear layers of experts over the rows that chose them: 2 m chosen k n FLOPs in one kernel.

    The weights of the experts that some row chose are read once (`distinct_experts`).

    >>> from costmodel.precision import parse_precision
    >>> op = grouped("experts", 4, 6, 16, 2, parse_precision("fp16").text, 48)(1)
    >>> op.flops, op.weight_bytes  # 2 x 2 x 4 x 6; 2 experts of 4 x 6 x 2 B
    (96, 96.0)
    """
    size = numerics.activation_bytes

    def cost(m: Num, count: Num = 1, /) -> OpCost:
        rows = m * chosen
        hit = distinct_experts(m, experts, chosen)
        flops = 2 * rows * k * n
        return op_cost(
            name,
            "gemm",
            numerics.label,
            count,
            flops=flops,
            matrix_flops=flops,
            vector_flops=2 * k * n * hit if numerics.dequantise else 0,
            weight_bytes=stored_bytes * hit,
            activation_read_bytes=rows * k * numerics.operand_bytes,
            activation_write_bytes=rows * n * size,
            shape=(rows / (hit + (hit == 0)), n, k, hit),
        )

    return cost


def _with_weights(
    name: str,
    op_class: str,
    dtype: str,
    widths: tuple[int, int],
    *,
    weight_bytes: float,
    expand: int,
    row_bytes: tuple[float, float],
    bias: bool,
) -> RowsCost:
    k, n = widths
    row_read, row_write = row_bytes
    row_flops = 2 * k * n
    adds = n if bias else 0

    def cost(m: Num, count: Num = 1, /) -> OpCost:
        flops = m * row_flops
        return op_cost(
            name,
            op_class,
            dtype,
            count,
            flops=flops,
            matrix_flops=flops,
            vector_flops=expand + m * adds if adds else expand,
            weight_bytes=weight_bytes,
            activation_read_bytes=m * row_read,
            activation_write_bytes=m * row_write,
            shape=(m, n, k),
        )

    return cost
