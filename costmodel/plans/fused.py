"""The plan `fused`: ideal traffic, one kernel per op class, as a serving engine launches them.

Q, K and V are one product, gate and up another; the residual add is inside the norm, the rotation
inside the cache write; an attention's scores never leave the chip unless a method reads them.

Where engines differ on sliding windows, the rule here is that of serving engines whose kernels skip
the keys outside (FlashAttention's `window_size`): a prompt executes the pairs inside the window, and
a layer's cache keeps the window less one token. Engines that ignore a model's window cost what the
same config without the window costs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costmodel.blocks import (
    Activate,
    Angles,
    Attend,
    Combine,
    Convolve,
    Embed,
    Inject,
    Join,
    Learned,
    Mask,
    Norm,
    Plain,
    Pool,
    Positions,
    Prepend,
    Project,
    Resample,
    Residual,
    Rotate,
    Route,
    Scale,
    Shuffle,
)
from costmodel.ops.attention import (
    SOFTMAX_FLOPS,
    attention,
    attention_scores,
    attention_values,
    softmax,
)
from costmodel.ops.linear import convolution, grouped, linear
from costmodel.ops.pointwise import activation, copy, embedding, norm, pointwise, rope
from costmodel.parallel.exchange import Exchange
from costmodel.plans.plan import Plan, over, rows_of
from costmodel.quantities import op_cost

if TYPE_CHECKING:
    from costmodel.blocks import Block
    from costmodel.ops.attention import AttentionCost
    from costmodel.plans.plan import Rows, Setting, Step
    from costmodel.quantities import OpCost


def nothing(_block: Block, _setting: Setting) -> list[Step]:
    """No kernel of its own."""
    return []


def _norm(block: Norm, setting: Setting) -> list[Step]:
    numerics = setting.of(block.feeds)
    cost = norm(block.name, block.width, numerics, block.after_residual)
    return [over(block.rows, cost, block.per_row)]


def _project(block: Project, setting: Setting) -> list[Step]:
    numerics, k = setting.of(block.module), block.width
    if block.experts:
        return [_experts(block, setting)]
    own = [(name, n, numerics.of(name)) for name, n in block.parts]
    if len({each.label for _, _, each in own}) > 1:
        # Products that multiply in different formats are no one product.
        return [over(block.rows, linear(name, k, n, each, block.bias)) for name, n, each in own]
    stored = sum(each.stored_bytes(k, n) for _, n, each in own)
    product = linear(block.name, k, block.outputs, own[0][2], block.bias, stored)
    return [over(block.rows, product)]


def _experts(block: Project, setting: Setting) -> Step:
    """Products of the experts' rows with their own weights, in one kernel."""
    numerics, k = setting.of(block.module), block.width
    own = [(n, numerics.of(part)) for part, n in block.parts]
    stored = sum(each.stored_bytes(k, n) for n, each in own)
    return over(
        block.rows,
        grouped(block.name, k, block.outputs, block.experts, block.chosen, own[0][1], stored),
    )


def _route(block: Route, setting: Setting) -> list[Step]:
    """Softmax and choice in one kernel, then a copy of each row for each of its experts."""
    numerics = setting.numerics
    size = numerics.activation_bytes
    choice = pointwise(block.name, numerics, read=size, write=size, width=block.experts,
                       flops_per_element=5)  # fmt: skip
    moved = copy(f"{block.name}_rows", numerics, width=block.width)
    return [over(block.rows, choice), over(block.rows, moved, block.chosen)]


def elementwise(
    block: Combine | Pool | Resample | Scale,
    setting: Setting,
    reads: int,
    writes: int = 1,
    **more: Any,
) -> list[Step]:
    """Run kernels over a block's rows that read and write so many numbers for each of its elements."""
    size = setting.numerics.activation_bytes
    cost = pointwise(block.name, setting.numerics, read=reads * size, write=writes * size,
                     width=block.width, **more)  # fmt: skip
    return [over(block.rows, cost)]


def _combine(block: Combine, setting: Setting) -> list[Step]:
    return elementwise(block, setting, block.chosen, flops_per_element=2 * block.chosen)


def _rotate(block: Rotate, setting: Setting) -> list[Step]:
    if block.rows:
        size = setting.numerics.activation_bytes
        width = (block.heads + block.kv_heads) * block.head_dim
        turned = pointwise(
            "rope", setting.numerics, read=size, write=size, width=width, flops_per_element=3,
            op_class="rope",
        )  # fmt: skip
        return [over(block.rows, turned)]
    cost = rope("rope_cache", block.heads, block.kv_heads, block.head_dim, setting.numerics)
    return [lambda n: cost(n["batch"], n["queries"], n["count"])]


def attending(cost: AttentionCost, queries: str = "queries") -> Step:
    """Return the step that runs a formula of attention over so many queries and all keys."""
    return lambda n: cost(n["batch"], n[queries], n["keys"], n["count"])


def flash(block: Attend, setting: Setting, *, quantised: bool, skips: bool = True) -> Step:
    """Return the one kernel of an attention that keeps its scores on the chip."""
    return attending(
        attention(
            "attention",
            f"attention_{setting.phase}",
            block.heads,
            block.kv_heads,
            block.head_dim,
            setting.numerics,
            causal=block.causal,
            cached=block.cached,
            quantised=quantised,
            window=block.window,
            skips=skips,
        )
    )


def _attend(block: Attend, setting: Setting) -> list[Step]:
    if not (setting.written or block.written):
        step = flash(block, setting, quantised=True)
        if block.both_ways and setting.phase == "prefill":
            step = _both_ways(block, step)
        return [step]
    numerics, cached = setting.numerics, block.cached
    h, k, e = block.heads, block.kv_heads, block.head_dim
    return [
        attending(attention_scores("attention_scores", h, k, e, numerics, cached=cached)),
        attending(softmax("softmax", numerics, h)),
        attending(
            attention_values(
                "attention_values", h, k, e, numerics, cached=cached, quantised=True
            ),
            "summed",
        ),
    ]  # fmt: skip


def _both_ways(block: Attend, step: Step) -> Step:
    """Add the pairs above the diagonal in which tokens of one image see each other."""

    def run(n: Rows) -> OpCost:
        op = step(n)
        # Of m tokens m (m - 1) / 2 pairs: (m - 1) / 2 for each.
        pairs = block.heads * n["visual"] * (block.both_ways - 1) / 2
        return op._replace(
            matrix_flops=op.matrix_flops + 4 * block.head_dim * pairs,
            vector_flops=op.vector_flops + SOFTMAX_FLOPS * pairs,
        )

    return run


def _activate(block: Activate, setting: Setting) -> list[Step]:
    cost = activation(block.name, block.width, setting.numerics, block.gated)
    return [over(block.rows, cost, block.per_row)]


def _embed(block: Embed, setting: Setting) -> list[Step]:
    return [over(block.rows, embedding(block.name, block.width, setting.of(block.module)))]


def _convolve(block: Convolve, setting: Setting) -> list[Step]:
    cost = convolution(block.name, block.window, block.channels, setting.numerics, block.bias)
    return [over(block.rows, cost)]


def _shuffle(block: Shuffle, setting: Setting) -> list[Step]:
    return [over(block.rows, copy(block.name, setting.of(block.module), width=block.width))]


def _pool(block: Pool, setting: Setting) -> list[Step]:
    return elementwise(block, setting, block.pooled, flops_per_element=block.pooled)


def _resample(block: Resample, setting: Setting) -> list[Step]:
    """The nearest positions of each row are weighed and added to it."""
    return elementwise(block, setting, 1 + block.taps, flops_per_element=2 * block.taps)


def _inject(block: Inject, setting: Setting) -> list[Step]:
    if setting.phase == "decode":
        return []
    numerics = setting.numerics
    size = numerics.activation_bytes
    added = pointwise(block.name, numerics, read=2 * size, write=size, width=block.width)
    return [lambda n: added(n["visual"], n["count"] * (n["visual"] > 0))]


def _exchange(block: Exchange, setting: Setting) -> list[Step]:
    """A collective, whose shape is (bytes, ranks): its traffic to memory is part of its time, not counted."""
    numerics = setting.numerics
    row_bytes = block.width * numerics.activation_bytes

    def run(n: Rows) -> OpCost:
        shape = (rows_of(block.rows, n) * row_bytes, block.ranks)
        return op_cost(block.name, block.kind, numerics.attention_dtype, n["count"], shape=shape)

    return [run]


def _plain(block: Plain, setting: Setting) -> list[Step]:
    return PLAN.lower(block.blocks, setting)


PLAN = Plan(
    name="fused",
    label="fused kernels",
    rules={
        Norm: _norm,
        Project: _project,
        Rotate: _rotate,
        Attend: _attend,
        Activate: _activate,
        Residual: nothing,
        Embed: _embed,
        Positions: nothing,
        Prepend: nothing,
        Resample: _resample,
        Scale: nothing,
        Route: _route,
        Combine: _combine,
        Pool: _pool,
        Join: nothing,
        Inject: _inject,
        Convolve: _convolve,
        Shuffle: _shuffle,
        Angles: nothing,
        Mask: nothing,
        Learned: nothing,
        Plain: _plain,
        Exchange: _exchange,
    },
)
