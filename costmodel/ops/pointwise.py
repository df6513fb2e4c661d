"""Everything that is not a matrix product: norms, rotations, activations, copies, look-ups.

None of it counts as FLOPs; all of it moves bytes and launches kernels. Where eager PyTorch runs a
chain of kernels for one op, the plan says how many and how many bytes pass per element.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from costmodel.quantities import op_cost

if TYPE_CHECKING:
    from costmodel.ops.linear import RowsCost
    from costmodel.precision import Numerics
    from costmodel.quantities import Num, OpCost


def pointwise(
    name: str,
    numerics: Numerics,
    *,
    read: float,
    write: float,
    width: int = 1,
    flops_per_element: float = 1,
    kernels: int = 1,
    op_class: str = "pointwise",
    weights: float = 0,
) -> RowsCost:
    """A chain of elementwise kernels over rows of a width, or over elements, rows of width 1.

    Args:
        name: the op's name.
        numerics: of the module.
        read: bytes read per element, over the whole chain.
        write: bytes written per element, over the whole chain.
        width: elements of a row.
        flops_per_element: vector FLOPs per element.
        kernels: kernels in the chain.
        op_class: `pointwise`, `norm`, `activation` or `copy`.
        weights: bytes of parameters read.

    >>> from costmodel.precision import parse_precision
    >>> op = pointwise("add", parse_precision("fp16").text, read=4, write=2)(100)
    >>> op.activation_read_bytes, op.activation_write_bytes, op.vector_flops, op.flops
    (400, 200, 100, 0)
    """
    dtype = numerics.attention_dtype
    row_flops, row_read, row_write = width * flops_per_element, width * read, width * write

    def cost(rows: Num, count: Num = 1, /) -> OpCost:
        return op_cost(
            name,
            op_class,
            dtype,
            count,
            vector_flops=rows * row_flops,
            weight_bytes=weights,
            activation_read_bytes=rows * row_read,
            activation_write_bytes=rows * row_write,
            kernels=kernels,
        )

    return cost


def norm(
    name: str, d: int, numerics: Numerics, residual_add: bool = False, op_class: str = "norm"
) -> RowsCost:
    """One fused RMSNorm or LayerNorm kernel over rows, optionally with the residual add before it.

    Args:
        name: the op's name.
        d: width.
        numerics: of the module.
        residual_add: whether the kernel also adds the branch to the stream, writes the stream, and
            writes its own output as the next product wants it, quantised where that is.
        op_class: `norm`, or `layer_norm` for PyTorch's own kernel.
    """
    size = numerics.activation_bytes
    return pointwise(
        name,
        numerics,
        read=2 * size if residual_add else size,
        write=size + numerics.operand_bytes if residual_add else size,
        width=d,
        flops_per_element=4 + residual_add,
        op_class=op_class,
        weights=d * size,
    )


def residual(name: str, d: int, numerics: Numerics) -> RowsCost:
    """A residual add over rows of width d: two tensors read, one written."""
    size = numerics.activation_bytes
    return pointwise(name, numerics, read=2 * size, write=size, width=d)


class RotationCost(Protocol):
    """A rotation whose fixed half is done: batch, tokens and executions to an op."""

    def __call__(self, b: Num, s: Num, count: Num = 1, /) -> OpCost:
        """Return the op over s tokens in each of b samples."""


def rope(name: str, h: int, k: int, e: int, numerics: Numerics) -> RotationCost:
    """Rotary embedding fused with the cache write: q, k, v read; q written; k, v into the cache."""
    size, dtype = numerics.activation_bytes, numerics.attention_dtype
    queries, keys = h * e, k * e
    each_flops, each_written = 3 * (queries + keys), 2 * keys * numerics.kv_bytes
    each_read = (queries + 2 * keys) * size
    each_result = queries * size

    def cost(b: Num, s: Num, count: Num = 1, /) -> OpCost:
        tokens = b * s
        return op_cost(
            name,
            "rope",
            dtype,
            count,
            vector_flops=tokens * each_flops,
            kv_write_bytes=tokens * each_written,
            activation_read_bytes=tokens * each_read,
            activation_write_bytes=tokens * each_result,
        )

    return cost


def activation(name: str, f: int, numerics: Numerics, gated: bool = True) -> RowsCost:
    """An activation function over rows of f features; gated (SwiGLU) ones read the gate and the value.

    The output is written as the next product wants it, quantised where that is.
    """
    return pointwise(
        name,
        numerics,
        read=(2 if gated else 1) * numerics.activation_bytes,
        write=numerics.operand_bytes,
        width=f,
        flops_per_element=5 if gated else 4,
        op_class="activation",
    )


def copy(
    name: str, numerics: Numerics, *, width: int = 1, kernels: int = 1, op_class: str = "copy"
) -> RowsCost:
    """Rows of a width (or elements, rows of width 1) read and written once, in one piece or not."""
    size = numerics.activation_bytes
    return pointwise(
        name, numerics, read=size, write=size, width=width, flops_per_element=0, kernels=kernels,
        op_class=op_class,
    )  # fmt: skip


def embedding(name: str, d: int, numerics: Numerics) -> RowsCost:
    """A look-up in a table of width d: only the rows asked for are read; no FLOPs."""
    size, dtype = numerics.activation_bytes, numerics.attention_dtype

    def cost(rows: Num, count: Num = 1, /) -> OpCost:
        moved = rows * d * size
        return op_cost(
            name, "embedding", dtype, count, weight_bytes=moved, activation_write_bytes=moved
        )

    return cost
