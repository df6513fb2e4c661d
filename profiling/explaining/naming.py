"""What ops and kernels are, by their names: the op's class, the kernel's family.

Classes are those of `costmodel.calibration.classes`, with `softmax`, `reduce` and `select` (sorting,
picking, counting: the work of a method that chooses tokens) beside them. A name that no rule knows is
`other`, and nothing of that class counts as attributed.
"""

from __future__ import annotations

import re
from functools import lru_cache

OTHER = "other"
#: The classes an attention may have; which one, its sizes say.
ATTENTION = ("attention_prefill", "attention_encoder", "attention_decode")

#: Tried in order on an op's name without its namespace: the first that is found names the class.
_OPS = (
    (r"rotary|rope", "pointwise"),
    (r"scaled_dot_product|flash_att|flash_fwd|efficient_attention|attention_forward|(paged|unified|varlen)"
     r".*att|mha_(varlen_)?fwd|fmha|fused_attention|^attention", "attention_prefill"),
    (r"conv", "conv"),
    (r"softmax", "softmax"),
    (r"(layer|rms|group|batch|instance|l2)_?norm|^norm$|linalg_vector_norm|normalize", "norm"),
    (r"^_?(fused_)?(add|b|ba)?d*(mm|linear|matmul|bmm|addmm|baddbmm|einsum|mv|addmv|dot|vdot|inner)$|"
     r"scaled_mm|int_mm|int8_mm|int4_?packed_mm|gemm|gptq|awq|marlin|grouped_mm|cutlass", "gemm"),
    (r"^_?embedding|embedding_bag", "embedding"),
    # The host reads a value back.
    (r"^_?(item|local_scalar_dense|is_nonzero|is_all_true|is_any_true|equal|allclose)$", "copy"),
    (r"topk|sort|argm(ax|in)|cumsum|cumprod|unique|nonzero|multinomial|cdist|histc|bincount|kthvalue|"
     r"searchsorted|bucketize|masked_select|bernoulli|isin$", "select"),
    (r"^(sum|mean|amax|amin|aminmax|max|min|any|all|prod|var|std|var_mean|median|logsumexp|norm|count_"
     r"nonzero|nansum)$", "reduce"),
    (r"copy|clone|contiguous|^cat$|concat|stack|^to$|^_to_copy$|index|gather|scatter|repeat|expand|reshape|"
     r"^pad|constant_pad|roll|flip|tile|unfold|im2col|pixel_(un)?shuffle|upsample|interpolate|grid_sampl|"
     r"one_hot|triu|tril|diag|cache|take_along|^take$|resolve_(conj|neg)", "copy"),
    (r"^(fill|zero|zeros|ones|full|arange|linspace|eye|new_|scalar_tensor|rand|normal|uniform|dropout|"
     r"native_dropout)", "pointwise"),
    (r"^_?(foreach_)?(add|sub|rsub|mul|div|true_divide|floor_divide|neg|pow|square|exp|expm1|exp2|log|log1p|log2|sqrt|"
     r"rsqrt|reciprocal|abs|sign|sgn|sin|cos|tan|tanh|atan|atan2|sigmoid|silu|gelu|relu|relu6|leaky_relu|"
     r"elu|softplus|hardtanh|hardswish|glu|mish|erf|clamp|clamp_min|clamp_max|clip|minimum|maximum|fmod|"
     r"remainder|floor|ceil|round|trunc|frac|where|masked_fill|lerp|addcmul|addcdiv|eq|ne|lt|le|gt|ge|"
     r"isnan|isinf|isfinite|isneginf|isposinf|nan_to_num|logical_\w+|bitwise_\w+|__\w+__|threshold|angle|"
     r"polar|complex|view_as_complex|real|imag|conj|logaddexp|xlogy|heaviside|copysign|addr|outer)_?$|"
     r"(silu|gelu|relu|swiglu)_and|_and_mul|act_|quant", "pointwise"),
)  # fmt: skip

#: Likewise on a kernel's name.
_KERNELS = (
    # Around a serving engine's attention, and named after it.
    (r"kv_?indices|and_cache|store_kv|metadata", "copy"),
    (r"flash|fmha|sdpa|attn_fwd|mha_fwd|attention", "attention_prefill"),
    (r"rotary|rope", "pointwise"),
    (r"implicit_?gemm.*(conv|fprop)|fprop|conv(olution)?(_|\d|2d|3d|Fwd|::)|igemm_fwd|winograd|nchwToNhwc|nhwcToNchw",
     "conv"),
    (r"softmax", "softmax"),
    (r"layer_?norm|rms_?norm|rsqrt.*mean|mean.*rsqrt", "norm"),
    (r"gemm|gemv|cijk|xmma|nvjet|cutlass|splitk|wmma|tensorop_|_mm_|matmul|dot_kernel|gemvx|marlin", "gemm"),
    (r"sort|topk|radix|scan|histogram|select_if|cub::|argmax|argmin|multinomial|rocprim|cdist", "select"),
    (r"indexselect|embedding", "embedding"),
    (r"copy|catarray|index|gather|scatter|cache|transpose|permute|repeat", "copy"),
    (r"reduce_kernel|reduction|triton_(red|per)_", "reduce"),
    (r"elementwise|pointwise|fill|triton_poi_|act_and_mul|arange|silu|gelu|vectorized", "pointwise"),
)  # fmt: skip

#: (kernel's name, the implementation of attention in words), tried in order.
_ATTENTION_KERNELS = (
    (r"paged_attention", "paged attention"),
    (r"unified_attention", "unified attention (Triton)"),
    (r"pytorch_flash|flash_fwd.*Flash_fwd_kernel_traits|flash_fwd_(splitkv_)?kernel", "FlashAttention-2"),
    (r"FlashAttnFwdSm90|flash.*Sm90|flash::.*sm90", "FlashAttention-3"),
    (r"fmha_cutlassF|AttentionKernel|efficient_attention", "memory-efficient (CUTLASS)"),
    (r"cudnn.*(sdpa|flash|fort_native)", "cuDNN"),
    (r"attn_fwd", "AOTriton"),
    (r"ck_tile.*[Ff]mha|fmha_fwd", "Composable Kernel"),
    (r"BatchPrefill|BatchDecode|SinglePrefill|SingleDecode|flashinfer", "FlashInfer"),
    (r"fmha|flash|attention", "another fused kernel"),
)  # fmt: skip
#: A product whose operands are not aligned to 16 bytes says so in its kernel's name.
_UNALIGNED = re.compile(r"align([124])(?!\d)")
_GEMM_FAMILIES = (
    (r"nvjet", "cuBLAS (nvjet)"),
    (r"xmma", "cuBLAS (xmma)"),
    (r"cutlass|wmma_tensorop", "CUTLASS"),
    (r"Cijk", "hipBLASLt (Tensile)"),
    (r"gemv|gemmk1|gemvx|dot_kernel", "matrix-vector"),
    (r"splitK", "split over k"),
    (r"triton", "Triton"),
    (r"(ampere|volta|turing|hopper|sm\d\d)_", "cuBLAS"),
    (r"gemm", "another library"),
)

_COMPILED = {
    name: tuple((re.compile(pattern, re.IGNORECASE), value) for pattern, value in table)
    for name, table in (
        ("ops", _OPS), ("kernels", _KERNELS), ("attention", _ATTENTION_KERNELS), ("gemm", _GEMM_FAMILIES),
    )
}  # fmt: skip


def _first(table: str, name: str) -> str | None:
    return next((value for pattern, value in _COMPILED[table] if pattern.search(name)), None)


@lru_cache(maxsize=4096)
def class_of_op(op: str) -> str | None:
    """Return the class of an op by its name; None where no rule knows it.

    >>> class_of_op("aten::addmm"), class_of_op("aten::native_layer_norm"), class_of_op("my::thing")
    ('gemm', 'norm', None)
    """
    if op.startswith("triton_"):
        return class_of_kernel(op)
    return _first("ops", op.rpartition("::")[2])


@lru_cache(maxsize=4096)
def class_of_kernel(kernel: str) -> str | None:
    """Return the class that a kernel's name says; None where no rule knows it.

    >>> class_of_kernel("sm90_xmma_gemm_bf16bf16"), class_of_kernel("xyz")
    ('gemm', None)
    """
    # The arguments of a template name types of others; the function's own name stands before them.
    head = kernel.split("(", 1)[0] if not kernel.startswith("void (") else kernel
    return _first("kernels", head) or _first("kernels", kernel)


@lru_cache(maxsize=4096)
def attention_family(kernel: str) -> str | None:
    """Return which implementation of fused attention a kernel belongs to; None for no attention.

    >>> attention_family("void pytorch_flash::flash_fwd_kernel<...>")
    'FlashAttention-2'
    """
    return _first("attention", kernel)


@lru_cache(maxsize=4096)
def gemm_family(kernel: str) -> str | None:
    """Return which library's product a kernel is; None for none that is known.

    >>> gemm_family("sm90_xmma_gemm_bf16bf16_bf16f32")
    'cuBLAS (xmma)'
    """
    return _first("gemm", kernel)


def is_unaligned(kernel: str) -> bool:
    """Return whether a product's kernel is one for operands that are not aligned to 16 bytes.

    >>> is_unaligned("cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16_16x16_128x1_nn_align1")
    True
    """
    return bool(_UNALIGNED.search(kernel)) and class_of_kernel(kernel) == "gemm"
