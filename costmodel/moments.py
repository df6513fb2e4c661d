"""What is alive at a layer's worst moment, from its blocks and from who runs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from costmodel.blocks import Activate, Attend, Residual
from costmodel.ops.attention import SOFTMAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from costmodel.blocks import Block
    from costmodel.plans import Plan
    from costmodel.precision import Numerics
    from costmodel.quantities import Num

#: `max`, or `numpy.maximum` for arrays.
Maximum: TypeAlias = Callable[[Any, Any], Any]


class Moments(NamedTuple):
    """What is alive at a layer's worst moment, from its blocks and who runs it.

    Its MLP, or an attention that writes its scores out, may be the worst; without scores an attention
    never is. Widths are numbers per row, the stream and the branch's normed input among them.

    Attributes:
        mlp: width at the worst moment outside attention.
        attention: width while scores are alive.
        heads: heads whose scores are alive; 0 without attention.
    """

    mlp: int
    attention: int
    heads: int

    def peak_bytes(
        self, rows: Num, scores: Num | None, numerics: Numerics, plan: Plan, maximum: Maximum
    ) -> Num:
        """Bytes at the layer's worst moment.

        Args:
            rows: tokens, batch included.
            scores: query-key pairs per head that are written out; None for none.
            numerics: of the module.
            plan: who runs it.
            maximum: `max`, or `numpy.maximum` for arrays.
        """
        size = numerics.activation_bytes
        mlp = rows * self.mlp * size
        if scores is None:
            return mlp
        scores = self.heads * scores
        if plan.runs_pytorch:
            # The probabilities live to the layer's end.
            mlp = mlp + scores * size
            alive = scores * eager_score_bytes(numerics)
        else:
            alive = scores * 2 * size
        worst: Num = maximum(mlp, rows * self.attention * size + alive)
        return worst


def moments(layer: Iterable[Block], d: int, plan: Plan) -> Moments:
    """Find the worst moments of a layer.

    A branch holds the stream of width d and its own normed input; of a stream that ranks divide by rows, the
    share of one. PyTorch holds the layer's input as
    well, which is the stream itself in the first branch; it has K and V of a cached attention in the
    cache, and repeats them for every query head where they are grouped. Gate, value and product of a
    gated MLP are alive together, two tensors of a plain one, three where the activation is a chain.

    >>> from costmodel import load_model
    >>> from costmodel.plans import get_plan
    >>> layer = load_model("llava-1.5-7b").text.stack.kinds[0]
    >>> moments(layer, 4096, get_plan("fused"))  # 2 d + 3 f; stream, norm, q, k and v
    Moments(mlp=41216, attention=20480, heads=32)
    """
    mlp = attention = heads = 0
    layer = tuple(layer)
    ranks = next(
        (block.rows.partition("/")[2] for block in layer if isinstance(block, Residual)), ""
    )
    width = -(-d // int(ranks or 1))
    stream = width
    for block in layer:
        if isinstance(block, Residual):
            stream = width * (1 + plan.runs_pytorch)
        elif isinstance(block, Activate) and block.rows == "mlp":
            tensors = 3 if block.gated or (block.chained and plan.runs_pytorch) else 2
            mlp = max(mlp, stream + d + tensors * block.width * block.per_row)
        elif isinstance(block, Attend):
            h, k, e = block.heads, block.kv_heads, block.head_dim
            if plan.runs_pytorch and block.cached:
                k = h if h > k else 0
            attention, heads = max(attention, stream + d + (h + 2 * k) * e), max(heads, h)
    return Moments(mlp, attention, heads)


def eager_score_bytes(numerics: Numerics) -> float:
    """Bytes per score at the worst moment of an eager softmax, which runs in float32.

    FP32 holds scores and probabilities. Narrower formats add the cast result to them, but bfloat16,
    which CUDA's softmax does not read, holds the scores in both formats beside the probabilities.

    >>> from costmodel.precision import parse_precision
    >>> [eager_score_bytes(parse_precision(p).text) for p in ("fp32", "fp16", "bf16")]
    [8, 8, 10]
    """
    size = numerics.activation_bytes
    if size >= SOFTMAX_BYTES:
        return 2 * size
    copy = SOFTMAX_BYTES if numerics.attention_dtype == "bf16" else size
    return size + SOFTMAX_BYTES + copy
