"""The plan `hf-eager`: what `transformers` launches under eager PyTorch.

Norms, rotations, activations, residuals, casts and cache concatenation are chains of kernels that
read and write memory. The chains were read off `transformers`, kernel by kernel, for 16-bit models.
A Llama layer has 40 kernels: RMSNorm twice (8 kernels and 36 bytes per element: cast, square, mean,
add epsilon, reciprocal root, scale, cast, weight), rotating q and k (5 kernels and 20 bytes each:
multiply, negate, concatenate, multiply, add), the cache's concatenation of K and V (2), SiLU and
multiply (2), 7 products, 1 attention, 2 residual adds. With 10 kernels of position angles, 8 of the
final norm and the head that is 1,299 for 32 layers.

A CLIP layer has 14: two norms, four products with bias in the epilogue, attention, three for
quick-GELU, two MLP products, two residual adds. Patch convolution, class-token concatenation,
position look-up and add, pre-norm and the norm of the class token add 6: 342 for the 24 layers of
CLIP ViT-L. SigLIP has no class token and no pre-norm; its GELU is one kernel.

Sliding windows follow `transformers`: as soon as the keys fill the window, SDPA gets a mask (12 kernels
a step, one more in every layer), so it runs over the full square of the prompt, and grouped keys are
repeated for every query head. The cache is cut to the window less one token, and concatenated with
the new one at every step. The cut is a view: what it leaves out stays in memory until the next step.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from costmodel.blocks import (
    Activate,
    Angles,
    Attend,
    Combine,
    Embed,
    Inject,
    Join,
    Mask,
    Norm,
    Positions,
    Prepend,
    Project,
    Resample,
    Residual,
    Rotate,
    Route,
    Scale,
)
from costmodel.ops.attention import SOFTMAX_BYTES, attention_scores, attention_values
from costmodel.ops.linear import linear
from costmodel.ops.pointwise import copy, embedding, norm, pointwise, residual
from costmodel.plans import fused
from costmodel.plans.fused import attending
from costmodel.plans.plan import Plan, over
from costmodel.quantities import op_cost

if TYPE_CHECKING:
    from costmodel.ops.linear import RowsCost
    from costmodel.plans.plan import Rows, Setting, Step
    from costmodel.quantities import Num, OpCost

#: Longest rows whose softmax keeps them in registers; longer ones are read several times.
SOFTMAX_ROW = 1024


def _norm(block: Norm, setting: Setting) -> list[Step]:
    """RMSNorm runs in float32, with casts around it when the model is narrower."""
    numerics, d = setting.numerics, block.width
    if block.kind == "layer":
        return [
            over(block.rows, norm(block.name, d, numerics, op_class="layer_norm"), block.per_row)
        ]
    size = numerics.activation_bytes
    wide = size >= SOFTMAX_BYTES
    read, write, kernels = (
        (4.0 * size, 3.0 * size, 6) if wide else (2 * size + 16.0, 2 * size + 12.0, 8)
    )
    if block.offset:
        # The scale is cast and one added to it first; the product with it stays in float32.
        read, write, kernels = (read, write, 7) if wide else (read + 2.0, write + 2.0, 10)
    chain = pointwise(
        block.name,
        numerics,
        read=read,
        write=write,
        flops_per_element=4,
        kernels=kernels,
        width=d,
        op_class="norm_chain",
        weights=d * size,
    )
    return [over(block.rows, chain, block.per_row)]


def _project(block: Project, setting: Setting) -> list[Step]:
    numerics = setting.of(block.module)
    if block.experts:
        return fused.PLAN.rules[Project](block, setting)
    return [
        over(block.rows, linear(name, block.width, n, numerics.of(name), block.bias))
        for name, n in block.parts
    ]


def _quantise(block: Project, setting: Setting) -> list[Step]:
    """Dynamic quantisation of a product's input: find the largest value, then scale and round."""
    numerics = setting.of(block.module).of(block.parts[0][0])
    if not block.reads or numerics.operand_bytes >= numerics.activation_bytes:
        return []
    cost = pointwise(
        f"quantise_{block.reads}",
        numerics,
        read=2 * numerics.activation_bytes,
        write=numerics.operand_bytes,
        width=block.width,
        flops_per_element=3,
        kernels=2,
    )
    return [over(block.rows, cost)]


def rotated(block: Rotate, setting: Setting) -> Step:
    """Return the kernels that rotate q and k; casts to float32 and back are two more for each."""
    size = setting.numerics.activation_bytes
    casts = block.in_float32 and size < SOFTMAX_BYTES
    wide = SOFTMAX_BYTES if casts else size
    cost = pointwise(
        "rope", setting.numerics, read=5.5 * wide + casts * (size + wide),
        write=4.5 * wide + casts * (size + wide), width=(block.heads + block.kv_heads) * block.head_dim,
        flops_per_element=4, kernels=10 + 4 * casts, op_class="strided",
    )  # fmt: skip
    if block.rows:
        return over(block.rows, cost)
    return lambda n: cost(n["batch"] * n["queries"], n["count"])


def _rotate(block: Rotate, setting: Setting) -> list[Step]:
    """Rotate q and k, then concatenate K and V to the cache: read it with the new keys, write it anew."""
    numerics, size = setting.numerics, setting.numerics.activation_bytes
    k, e = block.kv_heads, block.head_dim
    turned = rotated(block, setting)
    if block.rows:
        return [turned]

    def concatenate(n: Rows) -> OpCost:
        b, s, past = n["batch"], n["queries"], n["keys"] - n["queries"]
        new, old = 2 * b * s * k * e, 2 * b * past * k * e
        return op_cost(
            "cache_cat",
            "cat",
            numerics.attention_dtype,
            n["count"],
            kv_read_bytes=old * numerics.kv_bytes,
            kv_write_bytes=(old + new) * numerics.kv_bytes,
            activation_read_bytes=new * size,
            kernels=2,
        )

    return [turned, concatenate]


def _attend(block: Attend, setting: Setting) -> list[Step]:
    """SDPA, or scores, scale, mask, softmax and sum apart; the output is quantised elsewhere."""
    numerics, size, cached = setting.numerics, setting.numerics.activation_bytes, block.cached
    h, k, e = block.heads, block.kv_heads, block.head_dim
    repeat = copy("repeat_kv", numerics, kernels=2, op_class="strided")
    if not setting.written:
        seen = replace(block, causal=False, window=0) if _needs_mask(block, setting) else block
        return [
            *_masked(block, setting, repeat),
            fused.flash(seen, setting, quantised=False, skips=False),
        ]
    steps: list[Step] = []
    if h > 1 and setting.phase != "decode":
        # Batched products want each head in one piece: q is cut from its projection's rows, and so
        # are K and V where no cache has laid them out anew. One token's row is its heads already.
        laid_out = copy(
            "contiguous_heads", numerics, kernels=1 if cached else 3, op_class="strided"
        )
        steps.append(
            lambda n: laid_out(
                n["batch"] * n["queries"] * h * e
                + (0 if cached else 2 * n["batch"] * n["keys"] * k * e),
                n["count"],
            )
        )
    if h > k:
        steps.append(lambda n: repeat(2 * n["batch"] * n["keys"] * h * e, n["count"]))
    chain = [pointwise("scale", numerics, read=size, write=size)]
    if block.causal:
        # All heads of a sample read the same mask.
        chain.append(pointwise("mask", numerics, read=size * (1 + 1 / h), write=size))
    # The result is cast back from float32. CUDA's softmax reads FP16 but not BF16, which is cast
    # first.
    back = size < SOFTMAX_BYTES
    first = back and numerics.attention_dtype == "bf16"
    if back:
        chain.append(
            pointwise(
                "softmax_casts",
                numerics,
                read=SOFTMAX_BYTES + size * first,
                write=size + SOFTMAX_BYTES * first,
                flops_per_element=0,
                kernels=1 + first,
            )
        )

    def softmax(op_class: str) -> RowsCost:
        return pointwise(
            "softmax",
            numerics,
            read=SOFTMAX_BYTES if first else size,
            write=SOFTMAX_BYTES,
            flops_per_element=5,
            op_class=op_class,
        )

    short, long = softmax("pointwise"), softmax("softmax")
    output = copy("attention_output", numerics, op_class="strided")
    return [
        *steps,
        attending(attention_scores("attention_scores", h, k, e, numerics, cached=cached)),
        *(attending(lambda b, s, t, count=1, /, c=cost: c(b * h * s * t, count)) for cost in chain),
        attending(lambda b, s, t, n=1, /: short(b * h * s * t, n * (t <= SOFTMAX_ROW))),
        attending(lambda b, s, t, n=1, /: long(b * h * s * t, n * (t > SOFTMAX_ROW))),
        attending(
            attention_values("attention_values", h, k, e, numerics, cached=cached), "summed"
        ),
        lambda n: output(n["batch"] * n["summed"] * h * e, n["count"]),
    ]  # fmt: skip


def _masked(block: Attend, setting: Setting, repeat: RowsCost) -> list[Step]:
    """What SDPA needs besides as soon as the keys fill a window.

    Its mask of true and false becomes one of 0 and minus infinity in every layer, and grouped keys
    are repeated; one query folds the groups into its rows instead.
    """
    window, h, k, e = block.window, block.heads, block.kv_heads, block.head_dim
    always = _needs_mask(block, setting)
    if not (window or always):
        return []
    numerics = setting.numerics
    added = pointwise(
        "add_mask", numerics, read=1, write=numerics.activation_bytes, flops_per_element=0,
        op_class="copy",
    )  # fmt: skip

    def full(n: Rows) -> Num:
        return n["count"] if always else n["count"] * (n["keys"] >= window)

    steps: list[Step] = [lambda n: added(n["batch"] * n["queries"] * n["keys"], full(n))]
    if h > k and setting.phase != "decode":
        steps.append(lambda n: repeat(2 * n["batch"] * n["keys"] * h * e, full(n)))
    return steps


def _needs_mask(block: Attend, setting: Setting) -> bool:
    """Whether every prefill takes a mask, and so runs over the full square."""
    return bool(block.both_ways) and setting.phase == "prefill"


def _activate(block: Activate, setting: Setting) -> list[Step]:
    """SiLU and a product with the value; quick-GELU in three kernels; others in one."""
    numerics, size = setting.numerics, setting.numerics.activation_bytes
    reads, writes, kernels = (3, 2, 2) if block.gated else (4, 3, 3) if block.chained else (1, 1, 1)
    cost = pointwise(
        block.name,
        numerics,
        read=reads * size,
        write=writes * size,
        width=block.width,
        flops_per_element=5 if block.gated else 4,
        kernels=kernels,
    )
    return [over(block.rows, cost, block.per_row)]


def _route(block: Route, setting: Setting) -> list[Step]:
    """Softmax in float32, the largest few and their sum, then the rows sorted by their experts.

    `grouped_mm`, the default of `transformers`, takes 72 kernels for a layer of Qwen3's: 16 around its
    two products beside the router's and the activation's.
    """
    numerics, size = setting.numerics, setting.numerics.activation_bytes
    choice = pointwise(
        block.name, numerics, read=size + 2 * SOFTMAX_BYTES, write=2 * SOFTMAX_BYTES,
        width=block.experts, flops_per_element=5, kernels=11,
    )  # fmt: skip
    moved = copy(f"{block.name}_rows", numerics, width=block.width)
    return [over(block.rows, choice), over(block.rows, moved, block.chosen)]


def _combine(block: Combine, setting: Setting) -> list[Step]:
    """Rows weighed, put back in order, and added up."""
    k = block.chosen
    return fused.elementwise(block, setting, 3 * k, 2 * k + 1, flops_per_element=2 * k, kernels=4)


def _residual(block: Residual, setting: Setting) -> list[Step]:
    return [over(block.rows, residual(block.name, block.width, setting.numerics))]


def _resample(block: Resample, setting: Setting) -> list[Step]:
    """The nearest positions are looked up, weighed, added up, and the sum added to the row."""
    numerics, taps = setting.numerics, block.taps
    size = numerics.activation_bytes
    look_up = embedding(f"{block.name}_embed", block.width, numerics)
    # Weights are float32, and so are the products and their sum.
    weighed = pointwise(
        f"{block.name}_add", numerics, read=taps * (size + SOFTMAX_BYTES) + SOFTMAX_BYTES + 2 * size,
        write=(taps + 1) * SOFTMAX_BYTES + 2 * size, width=block.width, flops_per_element=2 * taps,
        kernels=4,
    )  # fmt: skip
    return [over(block.rows, look_up, taps), over(block.rows, weighed)]


def _join(block: Join, setting: Setting) -> list[Step]:
    """The lengths of the pieces are computed, and their outputs concatenated."""
    return [over(block.rows, copy(block.name, setting.numerics, width=block.width, kernels=2))]


def _inject(block: Inject, setting: Setting) -> list[Step]:
    """The stream is cloned; the visual rows are found, taken out, added to and put back."""
    if setting.phase == "decode":
        return []
    numerics, size = setting.numerics, setting.numerics.activation_bytes
    clone = copy(f"{block.name}_clone", numerics, width=block.width)
    added = pointwise(
        block.name, numerics, read=4 * size, write=3 * size, width=block.width, kernels=7
    )
    return [
        lambda n: clone(n["out"], n["count"] * (n["visual"] > 0)),
        lambda n: added(n["visual"], n["count"] * (n["visual"] > 0)),
    ]


def _prepend(block: Prepend, setting: Setting) -> list[Step]:
    return [over(block.rows, copy(block.name, setting.numerics, width=block.width, op_class="cat"))]


def _positions(block: Positions, setting: Setting) -> list[Step]:
    """The table is looked up once for all crops, and added to each."""
    look_up = embedding(f"{block.name}_embed", block.width, setting.numerics)
    add = residual(f"{block.name}_add", block.width, setting.numerics)
    if not block.looked_up:
        return [over(block.rows, add)]
    return [lambda n: look_up(block.tokens, n["count"]), over(block.rows, add)]


def _embed(block: Embed, setting: Setting) -> list[Step]:
    steps = fused.PLAN.rules[Embed](block, setting)
    if block.scaled:
        numerics = setting.of(block.module)
        size = numerics.activation_bytes
        scaled = pointwise("embed_scale", numerics, read=size, write=size, width=block.width)
        steps.append(over(block.rows, scaled))
    return steps


def _scale(block: Scale, setting: Setting) -> list[Step]:
    weights = block.width * setting.numerics.activation_bytes
    return fused.elementwise(block, setting, 1, weights=weights)


def _angles(block: Angles, setting: Setting) -> list[Step]:
    """Angles of every position: range, cast, product, concatenate, cos, sin, scale, cast."""
    cost = pointwise(
        "rope_setup", setting.numerics, read=28.0, write=26.0, width=block.head_dim,
        flops_per_element=6, kernels=10,
    )  # fmt: skip
    return [over(block.rows, cost)]


def _mask(block: Mask, setting: Setting) -> list[Step]:
    """Positions compared, then 0 or minus infinity for every pair; one query needs fewer kernels.

    SDPA takes a mask only of a window that the keys fill: true or false for every pair, by two
    comparisons and two conjunctions, which the samples share.
    """
    window = block.window
    if not setting.written:
        always = block.always and setting.phase == "prefill"
        if not (window or always):
            return []
        sliding = pointwise(
            "sliding_mask", setting.numerics, read=3, write=4, flops_per_element=4, kernels=12
        )
        return [
            lambda n: sliding(
                n["queries"] * n["keys"],
                n["count"] if always else n["count"] * (n["keys"] >= window),
            )
        ]
    cost = pointwise(
        "sliding_mask" if window else "causal_mask",
        setting.numerics,
        read=1,
        write=1 + setting.numerics.activation_bytes,
        flops_per_element=2,
        kernels=7 if setting.phase == "decode" else 10,
    )
    return [lambda n: cost(n["batch"] * n["queries"] * n["keys"], n["count"])]


PLAN = Plan(
    name="hf-eager",
    label="eager PyTorch",
    rules={
        **fused.PLAN.rules,
        Norm: _norm,
        Project: _project,
        Rotate: _rotate,
        Attend: _attend,
        Activate: _activate,
        Residual: _residual,
        Prepend: _prepend,
        Positions: _positions,
        Resample: _resample,
        Scale: _scale,
        Embed: _embed,
        Route: _route,
        Combine: _combine,
        Join: _join,
        Inject: _inject,
        Angles: _angles,
        Mask: _mask,
    },
    closing={Project: _quantise},
    runs_pytorch=True,
    host_launches=True,
)
