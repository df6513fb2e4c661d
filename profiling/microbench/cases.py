"""The ops to time: shapes of a LLaVA-like model, from its configuration.

Rows are chosen to reveal the staircase in the token count (tile edges and one past them) and to
spread over m, n and k; widths come from the model's linear layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from profiling.microbench.timing import OpCase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch

    from costmodel.models import ModelConfig

#: Rows of a product: decode, tile edges, one past them, LLaVA's own lengths, batches of them.
GEMM_ROWS = (1, 2, 4, 8, 16, 32, 41, 64, 76, 104, 128, 129, 168, 184, 232, 256, 257, 328, 424, 512,
             513, 576, 616, 1024, 2056, 2920, 4928)  # fmt: skip
#: A shorter list for slow devices.
GEMM_ROWS_SHORT = (1, 8, 32, 64, 104, 129, 232, 328, 616)
ATTENTION_LENGTHS = (41, 76, 104, 168, 232, 328, 424, 616, 1192, 2920)
DECODE_LENGTHS = (128, 616, 2048, 4096)
LADDER = tuple(1 << power for power in range(12, 29, 2))


def linear_widths(shape: ModelConfig) -> dict[str, tuple[int, int]]:
    """Return the (n, k) of every distinct linear layer of a model, by the name of a layer."""
    text = shape.text
    widths = {
        "q_proj": (text.num_heads * text.head_dim, text.hidden_size),
        "k_proj": (text.num_kv_heads * text.head_dim, text.hidden_size),
        "up_proj": (text.intermediate_size, text.hidden_size),
        "down_proj": (text.hidden_size, text.intermediate_size),
        "lm_head": (text.vocab_size, text.hidden_size),
    }
    if shape.vision is not None:
        tower = shape.vision
        widths |= {
            "vision_q_proj": (tower.hidden_size, tower.hidden_size),
            "vision_fc1": (tower.intermediate_size, tower.hidden_size),
            "vision_fc2": (tower.hidden_size, tower.intermediate_size),
        }
    if shape.projector is not None:
        widths["linear_1"] = (shape.projector.hidden_features, shape.projector.in_features)
    distinct: dict[tuple[int, int], str] = {}
    for name, width in widths.items():
        distinct.setdefault(width, name)
    return {name: width for width, name in distinct.items()}


def gemm_cases(
    shape: ModelConfig, dtype: str, device: str, rows: Sequence[int], *, max_flops: float
) -> Iterator[OpCase]:
    """Yield a product for every width of a model and number of rows.

    Args:
        shape: the model.
        dtype: `fp32`, `fp16`, `bf16` or a quantised label.
        device: `cuda`, `cuda:N` or `cpu`.
        rows: row counts m of the products.
        max_flops: products larger than this are left out.
    """
    for name, (n, k) in linear_widths(shape).items():
        for m in rows:
            # The head runs on one row per sequence only.
            if (name == "lm_head" and m > 8) or 2 * m * n * k > max_flops:
                continue
            yield gemm_case(m, n, k, dtype, device)


def gemm_case(m: int, n: int, k: int, dtype: str, device: str) -> OpCase:
    """Return one product [m, k] x [n, k]^T, its weight cold.

    2 m n k FLOPs; (m k + m n) activations and n k weights.

    Args:
        m: rows of the product.
        n: output features.
        k: input features.
        dtype: a dtype label.
        device: `cuda`, `cuda:N` or `cpu`.
    """
    import torch

    from profiling.subject.models import QUANTISED_DTYPES, torch_dtype

    floating = torch_dtype(dtype)
    size = floating.itemsize
    weight_size = {"w4a16": 0.5, "w8a16": 1, "w8a8": 1, "fp8": 1}.get(dtype, size)

    def prepare(count: int) -> list[Callable[[], Any]]:
        rows = torch.randn(m, k, device=device).to(floating)
        layers = []
        for _ in range(count):
            layer = torch.nn.Linear(k, n, bias=False, device=device, dtype=floating)
            layers.append(layer.requires_grad_(False))
        if dtype in QUANTISED_DTYPES:
            from profiling.subject.quantisation import quantise_module

            quantise_module(torch.nn.ModuleList(layers), dtype)
        return [_call(layer, rows) for layer in layers]

    return OpCase(
        "gemm", dtype, {"m": m, "n": n, "k": k}, 2 * m * n * k,
        int((m * k + m * n) * size + n * k * weight_size), int(n * k * weight_size), prepare,
    )  # fmt: skip


def _call(function: Callable[[Any], Any], argument: Any) -> Callable[[], Any]:
    return lambda: function(argument)


def conv_case(shape: ModelConfig, images: int, dtype: str, device: str) -> OpCase:
    """Return the patch convolution of a vision tower over some images, as its implicit product.

    Args:
        shape: a model with a vision tower.
        images: number of images.
        dtype: a dtype label.
        device: `cuda`, `cuda:N` or `cpu`.
    """
    import torch

    from profiling.subject.models import torch_dtype

    assert shape.vision is not None  # noqa: S101  (the caller looked)
    tower = shape.vision
    floating = torch_dtype(dtype)
    m, n, k = images * tower.patches, tower.hidden_size, tower.num_channels * tower.patch_size**2

    def prepare(count: int) -> list[Callable[[], Any]]:
        pixels = torch.randn(
            images, tower.num_channels, tower.image_size, tower.image_size, device=device
        ).to(floating)
        layers = [
            torch.nn.Conv2d(
                tower.num_channels, n, tower.patch_size, tower.patch_size, bias=tower.patch_bias,
                device=device, dtype=floating,
            ).requires_grad_(False)
            for _ in range(count)
        ]  # fmt: skip
        return [_call(layer, pixels) for layer in layers]

    size = floating.itemsize
    return OpCase(
        "conv", dtype, {"m": m, "n": n, "k": k}, 2 * m * n * k, (m * k + n * k + m * n) * size,
        n * k * size, prepare,
    )  # fmt: skip


def attention_cases(
    shape: ModelConfig, dtype: str, device: str, *, batches: Sequence[int], max_flops: float
) -> Iterator[OpCase]:
    """Yield the model's attentions: causal prefill, one decode query, the encoder's full square.

    Args:
        shape: the model.
        dtype: a floating label.
        device: `cuda`, `cuda:N` or `cpu`.
        batches: batch sizes of the attentions.
        max_flops: larger ones are left out.
    """
    text = shape.text
    heads = (text.num_heads, text.num_kv_heads, text.head_dim)
    cases = []
    for b in batches:
        cases += [("attention_prefill", b, s, s, heads, True) for s in ATTENTION_LENGTHS]
        cases += [("attention_decode", b, 1, t, heads, False) for t in DECODE_LENGTHS]
        if shape.vision is not None:
            tower = shape.vision
            square = (tower.num_heads, tower.num_heads, tower.head_dim)
            cases += [
                ("attention_encoder", b * crops, tower.tokens, tower.tokens, square, False)
                for crops in (1, 2, 3, 5)
            ]
    for op_class, b, s, t, (h, k, e), causal in cases:
        if 4 * b * h * s * t * e <= max_flops:
            yield attention_case(op_class, b, s, t, h, k, e, causal, dtype, device)


def attention_case(
    op_class: str,
    b: int,
    s: int,
    t: int,
    h: int,
    k: int,
    e: int,
    causal: bool,
    dtype: str,
    device: str,
) -> OpCase:
    """Return one scaled dot-product attention in the layout `transformers` hands it over.

    4 b h s t e FLOPs, the full square even when causal, as `torch.utils.flop_counter` counts.

    Args:
        op_class: `attention_prefill`, `attention_encoder` or `attention_decode`.
        b: batch.
        s: query length.
        t: key length.
        h: query heads.
        k: KV heads.
        e: head dim.
        causal: whether only the lower triangle is attended to.
        dtype: a floating label.
        device: `cuda`, `cuda:N` or `cpu`.
    """
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    from profiling.subject.models import torch_dtype

    floating = torch_dtype(dtype)

    def heads_of(length: int, count: int) -> torch.Tensor:
        tensor = torch.randn(b, length, count, e, device=device).to(floating)
        return tensor.transpose(1, 2)

    def prepare(count: int) -> list[Callable[[], Any]]:
        query = heads_of(s, h)

        def one(key: torch.Tensor, value: torch.Tensor) -> Callable[[], Any]:
            return lambda: scaled_dot_product_attention(
                query, key, value, is_causal=causal, enable_gqa=h != k
            )

        return [one(heads_of(t, k), heads_of(t, k)) for _ in range(count)]

    sizes = {"batch_size": b, "seq_len": s, "kv_len": t, "heads": h, "kv_heads": k, "head_dim": e,
             "causal": causal}  # fmt: skip
    kv_bytes = 2 * b * t * k * e * floating.itemsize
    return OpCase(
        op_class, dtype, sizes, 4 * b * h * s * t * e,
        2 * b * s * h * e * floating.itemsize + kv_bytes, kv_bytes, prepare,
    )  # fmt: skip


def ladder_cases(dtype: str, device: str, *, width: int, max_bytes: float) -> Iterator[OpCase]:
    """Yield copy, product, norm and look-up over sizes from kilobytes to the largest allowed.

    Args:
        dtype: a floating label.
        device: `cuda`, `cuda:N` or `cpu`.
        width: row length of the norm and the look-up.
        max_bytes: the largest operand.
    """
    from profiling.subject.models import torch_dtype

    size = torch_dtype(dtype).itemsize
    for elements in LADDER:
        if elements * size <= max_bytes:
            for kind in ("copy", "pointwise", "norm", "embedding"):
                yield stream_case(kind, elements, dtype, device, width=width)


def stream_case(kind: str, elements: int, dtype: str, device: str, *, width: int) -> OpCase:
    """Return one op that only moves data.

    Bytes: copy 2, pointwise product 3, layer norm 2 and look-up 2 per element, times the element.

    Args:
        kind: `copy`, `pointwise`, `norm` or `embedding`.
        elements: elements of the result.
        dtype: a floating label.
        device: `cuda`, `cuda:N` or `cpu`.
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
        if kind == "norm":
            layer = torch.nn.LayerNorm(width, device=device, dtype=floating).requires_grad_(False)
            return [lambda: layer(source)] * count
        index = torch.arange(rows, device=device).flip(0)
        return [lambda: torch.nn.functional.embedding(index, source)] * count

    sizes: dict[str, Any] = {"elements": used}
    if kind in ("norm", "embedding"):
        sizes["width"] = width
    # 0 cold bytes: small operands are warm in the cache, as activations are inside a model.
    return OpCase(kind, dtype, sizes, used if kind == "pointwise" else 0, traffic, 0, prepare)
