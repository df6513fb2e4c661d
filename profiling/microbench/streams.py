"""The streams to time: ops that only move data, over sizes, and the norms of a model by rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from profiling.microbench.timing import OpCase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from costmodel.models import ModelConfig

LADDER = tuple(1 << power for power in range(12, 29, 2))
#: Rows of the norms and the softmax: one token, batches of decode, an image, a long prompt.
NORM_ROWS = (1, 16, 88, 136, 577, 2048)


def ladder_cases(dtype: str, device: Any, *, width: int, max_bytes: float) -> Iterator[OpCase]:
    """Yield copy, strided copy, product, norm and look-up over sizes from kilobytes to `max_bytes`."""
    from profiling.subject.models import torch_dtype

    size = torch_dtype(dtype).itemsize
    for elements in LADDER:
        if elements * size <= max_bytes:
            for kind in ("copy", "strided", "pointwise", "norm", "embedding"):
                yield stream_case(kind, elements, dtype, device, width=width)


def stream_case(kind: str, elements: int, dtype: str, device: Any, *, width: int) -> OpCase:
    """Return one op that only moves data.

    Bytes: copies 2, pointwise product 3, layer norm 2 and look-up 2 per element, times the element. The
    strided copy writes a transposed matrix out, as the heads of attention are.

    Args:
        kind: `copy`, `strided`, `pointwise`, `norm` or `embedding`.
        elements: elements of the result.
        dtype: a floating label.
        device: where torch makes the tensors.
        width: row length of norm and look-up.
    """
    import torch

    from profiling.subject.models import torch_dtype

    floating = torch_dtype(dtype)
    size = floating.itemsize
    width = min(width, elements)
    rows = max(1, elements // width)
    used = elements if kind in ("copy", "pointwise") else rows * width
    traffic = used * size * (3 if kind == "pointwise" else 2)

    def prepare(count: int) -> list[Callable[[], Any]]:
        source = torch.randn(rows, width, device=device).to(floating)
        if kind in ("copy", "pointwise"):
            source = torch.randn(elements, device=device).to(floating)
        target = torch.empty_like(source)
        if kind == "copy":
            return [lambda: target.copy_(source)] * count
        if kind == "pointwise":
            other = source.clone()
            return [lambda: torch.mul(source, other, out=target)] * count
        if kind == "strided":
            turned = source.t()
            return [lambda: turned.contiguous()] * count
        if kind == "norm":
            layer = torch.nn.LayerNorm(width, device=device, dtype=floating).requires_grad_(False)
            return [lambda: layer(source)] * count
        index = torch.arange(rows, device=device).flip(0)
        return [lambda: torch.nn.functional.embedding(index, source)] * count

    sizes: dict[str, Any] = {"elements": used}
    if kind in ("norm", "embedding"):
        sizes["width"] = width
    if kind == "strided":
        sizes["variant"] = "strided"
    op_class = "copy" if kind == "strided" else kind
    # 0 cold bytes: small operands are warm in the cache, as activations are inside a model.
    return OpCase(op_class, dtype, sizes, used if kind == "pointwise" else 0, traffic, 0, prepare)


def norm_cases(shape: ModelConfig, dtype: str, device: Any) -> Iterator[OpCase]:
    """Yield a model's norms and its softmax over rows.

    Bytes: 2 per element of rows x width, times the element. The softmax is over a square of scores, one
    row per head and token.
    """
    import torch

    from profiling.subject.models import torch_dtype

    floating = torch_dtype(dtype)
    widths = [shape.text.hidden_size]
    if shape.vision is not None:
        widths.append(shape.vision.hidden_size)

    def case(name: str, rows: int, width: int) -> OpCase:
        def prepare(count: int) -> list[Callable[[], Any]]:
            source = torch.randn(rows, width, device=device).to(floating)
            if name == "softmax":
                return [lambda: source.softmax(-1)] * count
            kind = torch.nn.LayerNorm if name == "layer_norm" else torch.nn.RMSNorm
            layer = kind(width, device=device, dtype=floating).requires_grad_(False)
            return [lambda: layer(source)] * count

        sizes: dict[str, Any] = {"elements": rows * width, "width": width, "op": name}
        if name != "layer_norm":
            sizes["variant"] = name
        return OpCase("norm", dtype, sizes, 0, 2 * rows * width * floating.itemsize, 0, prepare)

    for rows in NORM_ROWS:
        for width in dict.fromkeys(widths):
            yield case("layer_norm", rows, width)
            yield case("rms_norm", rows, width)
        if rows > 1:
            yield case("softmax", shape.text.num_heads * rows, rows)
