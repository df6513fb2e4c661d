"""Everything that is not a matrix product: norms, rotations, activations, copies, look-ups.

None of it counts as FLOPs; all of it moves bytes and launches kernels. Where eager PyTorch runs a
chain of kernels for one op, the plan says how many and how many bytes pass per element.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.ops.registry import formula
from costmodel.quantities import OpCost

if TYPE_CHECKING:
    from costmodel.precision import Numerics
    from costmodel.quantities import Num


@formula("pointwise")
def pointwise(
    name: str,
    elements: Num,
    num: Numerics,
    *,
    read: float,
    write: float,
    flops_per_element: float = 1,
    kernels: int = 1,
    op_class: str = "pointwise",
    weights: Num = 0,
    count: Num = 1,
) -> OpCost:
    """A chain of elementwise kernels.

    Args:
        name: the op's name.
        elements: elements of the tensor it passes over.
        num: the module's numerics.
        read: bytes read per element, over the whole chain.
        write: bytes written per element, over the whole chain.
        flops_per_element: vector FLOPs per element.
        kernels: kernels in the chain.
        op_class: `pointwise`, `norm`, `copy` or `embedding`.
        weights: bytes of parameters read.
        count: how often it runs.

    >>> from costmodel.precision import parse_precision
    >>> op = pointwise("add", 100, parse_precision("fp16").text, read=4, write=2)
    >>> op.activation_read_bytes, op.activation_write_bytes, op.vector_flops, op.flops
    (400, 200, 100, 0)
    """
    return OpCost(
        name,
        op_class,
        num.attention_dtype,
        count,
        0,
        0,
        elements * flops_per_element,
        weights,
        0,
        0,
        elements * read,
        elements * write,
        kernels,
    )


@formula("norm")
def norm(
    name: str, rows: Num, d: int, num: Numerics, count: Num = 1, residual_add: bool = False
) -> OpCost:
    """One fused RMSNorm or LayerNorm kernel, optionally with the residual add before it.

    Args:
        name: the op's name.
        rows: b x s.
        d: width.
        num: the module's numerics.
        count: how often it runs.
        residual_add: whether the kernel also adds the branch to the stream, writes the stream, and
            writes its own output as the next product wants it, quantised where that is.
    """
    size = num.activation_bytes
    return pointwise(
        name,
        rows * d,
        num,
        read=2 * size if residual_add else size,
        write=size + num.operand_bytes if residual_add else size,
        flops_per_element=4 + residual_add,
        op_class="norm",
        weights=d * size,
        count=count,
    )


@formula("residual")
def residual(name: str, rows: Num, d: int, num: Numerics, count: Num = 1) -> OpCost:
    """A residual add: two tensors read, one written."""
    size = num.activation_bytes
    return pointwise(name, rows * d, num, read=2 * size, write=size, count=count)


@formula("rope")
def rope(
    name: str, b: Num, s: Num, h: int, k: int, e: int, num: Numerics, count: Num = 1
) -> OpCost:
    """Rotary embedding fused with the cache write: q, k, v read; q written; k, v into the cache.

    Args:
        name: the op's name.
        b: batch.
        s: tokens.
        h: query heads.
        k: KV heads.
        e: head dim.
        num: the module's numerics.
        count: how often it runs.
    """
    size = num.activation_bytes
    queries, keys = b * s * h * e, b * s * k * e
    return OpCost(
        name, "rope", num.attention_dtype, count, 0, 0, 3 * (queries + keys),
        0, 0, 2 * keys * num.kv_bytes, (queries + 2 * keys) * size, queries * size,
    )  # fmt: skip


@formula("activation")
def activation(
    name: str, rows: Num, f: int, num: Numerics, count: Num = 1, gated: bool = True
) -> OpCost:
    """An activation function over f features; gated (SwiGLU) ones read the gate and the value.

    The output is written as the next product wants it, quantised where that is.
    """
    return pointwise(
        name,
        rows * f,
        num,
        read=(2 if gated else 1) * num.activation_bytes,
        write=num.operand_bytes,
        flops_per_element=5 if gated else 4,
        op_class="activation",
        count=count,
    )


@formula("cache_write")
def cache_write(name: str, b: Num, s: Num, k: int, e: int, num: Numerics, count: Num = 1) -> OpCost:
    """K and V of s new tokens copied into the cache."""
    elements = 2 * b * s * k * e
    return OpCost(
        name, "copy", num.attention_dtype, count, 0, 0, 0,
        0, 0, elements * num.kv_bytes, elements * num.activation_bytes, 0,
    )  # fmt: skip


@formula("copy")
def copy(name: str, elements: Num, num: Numerics, count: Num = 1, kernels: int = 1) -> OpCost:
    """Elements read and written once."""
    size = num.activation_bytes
    return pointwise(
        name, elements, num, read=size, write=size, flops_per_element=0, kernels=kernels,
        op_class="copy", count=count,
    )  # fmt: skip


@formula("embedding")
def embedding(name: str, rows: Num, d: int, num: Numerics, count: Num = 1) -> OpCost:
    """A table look-up: only the rows asked for are read; no FLOPs."""
    size = rows * d * num.activation_bytes
    return OpCost(name, "embedding", num.attention_dtype, count, 0, 0, 0, size, 0, 0, 0, size)
