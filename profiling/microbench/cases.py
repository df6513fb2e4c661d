"""The products, convolutions and attentions to time: shapes of a model, from its configuration.

Rows are chosen to reveal the staircase in the token count (both sides of predicted edges) and to
spread over m, n and k; widths come from the model's linear layers. A row whose case no model's own op
has (an unaligned product, an attention forced to one implementation) names itself in `variant`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from profiling.microbench.timing import OpCase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch

    from costmodel.models import ModelConfig

#: Rows of a product: decode, tile edges, one past them, LLaVA's own lengths, batches of them.
GEMM_ROWS = (1, 2, 4, 8, 16, 32, 41, 64, 76, 80, 88, 96, 104, 128, 129, 136, 168, 184, 192, 232, 256,
             257, 328, 424, 512, 513, 576, 577, 616, 768, 1024, 1025, 1536, 2048, 2056, 2920, 3072,
             4096, 4928, 8192)  # fmt: skip
#: Those that come first: they alone make a fit, should the time run out.
GEMM_ROWS_FIRST = (1, 16, 64, 128, 129, 256, 257, 513, 616, 1024, 2048)
#: A shorter list for slow devices.
GEMM_ROWS_SHORT = (1, 8, 32, 64, 104, 129, 232, 328, 616)
ATTENTION_LENGTHS = (41, 76, 104, 168, 232, 328, 424, 616, 1192, 2920)
DECODE_LENGTHS = (128, 616, 2048, 4096)
#: Lengths whose rows are aligned to 2, 4, 8 and 16 bytes in 16-bit numbers.
UNALIGNED_LENGTHS = (577, 578, 580, 584)
#: Implementations of torch's attention, by the name of their `SDPBackend`.
ATTENTION_BACKENDS = {
    "flash": "FLASH_ATTENTION", "cudnn": "CUDNN_ATTENTION", "efficient": "EFFICIENT_ATTENTION",
}  # fmt: skip


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
    shape: ModelConfig, dtype: str, device: Any, rows: Sequence[int], *, max_flops: float
) -> Iterator[OpCase]:
    """Yield a product for every width of a model and number of rows.

    Args:
        shape: the model.
        dtype: `fp32`, `fp16`, `bf16` or a quantised label.
        device: where torch makes the tensors.
        rows: row counts m of the products.
        max_flops: products larger than this are left out.
    """
    shared = SharedLayers()
    for name, (n, k) in linear_widths(shape).items():
        for m in rows:
            # The head runs on one row per sequence only.
            if (name == "lm_head" and m > 8) or 2 * m * n * k > max_flops:
                continue
            yield gemm_case(m, n, k, dtype, device, shared)


@dataclass(slots=True)
class SharedLayers:
    """The linear layers of the last product, used again for its other row counts.

    Making and above all quantising them takes longer than timing one row count.
    """

    made: int = 0
    _key: tuple[Any, ...] = ()
    _layers: list[Any] = field(default_factory=list)

    def take(self, n: int, k: int, dtype: str, device: Any, count: int) -> list[Any]:
        """Return so many layers [k] -> [n] with random weights, quantised where the label says so."""
        key = (n, k, dtype, str(device), count)
        if key != self._key:
            # Let go of the old ones first: two sets need not fit side by side.
            self._layers = []
            self._layers, self._key = _linear_layers(n, k, dtype, device, count), key
            self.made += 1
        return self._layers


def _linear_layers(n: int, k: int, dtype: str, device: Any, count: int) -> list[Any]:
    import torch

    from profiling.subject.models import QUANTISED_DTYPES, torch_dtype

    layers = [
        torch.nn.Linear(k, n, bias=False, device=device, dtype=torch_dtype(dtype)).requires_grad_(
            False
        )
        for _ in range(count)
    ]
    if dtype in QUANTISED_DTYPES:
        from profiling.subject.quantisation import quantise_module

        held = torch.nn.ModuleList(layers)
        quantise_module(held, dtype)
        layers = list(held)  # type: ignore[arg-type]
    return layers


def gemm_case(
    m: int, n: int, k: int, dtype: str, device: Any, shared: SharedLayers | None = None
) -> OpCase:
    """Return one product [m, k] x [n, k]^T, its weight cold.

    2 m n k FLOPs; (m k + m n) activations and n k weights.
    """
    import torch

    from profiling.subject.models import torch_dtype
    from profiling.subject.quantisation import KERNELS

    floating = torch_dtype(dtype)
    size = floating.itemsize
    weight_size = {"w4a16": 0.5, "w8a16": 1, "w8a8": 1, "fp8": 1}.get(dtype, size)
    holder = SharedLayers() if shared is None else shared

    def prepare(count: int) -> list[Callable[[], Any]]:
        rows = torch.randn(m, k, device=device).to(floating)
        return [_call(layer, rows) for layer in holder.take(n, k, dtype, device, count)]

    sizes: dict[str, Any] = {"m": m, "n": n, "k": k}
    if dtype in KERNELS:
        sizes["kernel"] = KERNELS[dtype]
    return OpCase(
        "gemm", dtype, sizes, 2 * m * n * k,
        int((m * k + m * n) * size + n * k * weight_size), int(n * k * weight_size), prepare,
    )  # fmt: skip


def unaligned_cases(shape: ModelConfig, dtype: str, device: Any) -> Iterator[OpCase]:
    """Yield the scores of eager attention over lengths of every alignment, as batched products.

    2 b s s e FLOPs for b heads; the rows of the result are s long, so that an odd s leaves every other
    one without an aligned start.
    """
    import torch

    from profiling.subject.models import torch_dtype

    heads, e = shape.text.num_heads, shape.text.head_dim
    floating = torch_dtype(dtype)

    def case(s: int) -> OpCase:
        def prepare(count: int) -> list[Callable[[], Any]]:
            query, key = (torch.randn(heads, s, e, device=device).to(floating) for _ in range(2))
            return [lambda: query @ key.transpose(1, 2)] * count

        return OpCase(
            "gemm", dtype, {"batch": heads, "m": s, "n": s, "k": e, "variant": "batched"},
            2 * heads * s * s * e, heads * (2 * s * e + s * s) * floating.itemsize, 0, prepare,
        )  # fmt: skip

    return (case(s) for s in UNALIGNED_LENGTHS)


def _call(function: Callable[[Any], Any], argument: Any) -> Callable[[], Any]:
    return lambda: function(argument)


def conv_case(shape: ModelConfig, images: int, dtype: str, device: Any) -> OpCase:
    """Return the patch convolution of a vision tower over some images, as its implicit product."""
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
    shape: ModelConfig, dtype: str, device: Any, *, batches: Sequence[int], max_flops: float
) -> Iterator[OpCase]:
    """Yield the model's attentions: causal prefill, one decode query, the encoder's full square."""
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
    device: Any,
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
        device: where torch makes the tensors.
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


def backend_cases(shape: ModelConfig, dtype: str, device: Any, *, max_flops: float) -> list[OpCase]:
    """Return the causal prefill at three lengths by each of torch's attention implementations.

    Which one torch takes by itself differs between releases and devices.
    """
    text = shape.text
    sizes = (text.num_heads, text.num_kv_heads, text.head_dim)
    cases = []
    for s in (104, 616, 2920):
        if 4 * text.num_heads * s * s * text.head_dim > max_flops:
            continue
        plain = attention_case("attention_prefill", 1, s, s, *sizes, True, dtype, device)
        cases += [_by_backend(plain, name) for name in ATTENTION_BACKENDS]
    return cases


def _by_backend(case: OpCase, name: str) -> OpCase:
    def prepare(count: int) -> list[Callable[[], Any]]:
        return [_forced(function, ATTENTION_BACKENDS[name]) for function in case.prepare(count)]

    return replace(case, sizes={**case.sizes, "variant": name}, prepare=prepare)


def _forced(function: Callable[[], Any], backend: str) -> Callable[[], Any]:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def call() -> Any:
        with sdpa_kernel(getattr(SDPBackend, backend)):
            return function()

    return call
