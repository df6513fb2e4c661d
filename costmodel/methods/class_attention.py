"""The class token's attention in one vision layer, as methods that rank patches by it recompute it.

The tower keeps its own kernel. One row of one layer is computed again from the layer's queries and
keys: 2 (n+1) c FLOPs per crop of n patches in a tower of width c, softmaxed in float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from costmodel.methods.pieces import gather, passes, product
from costmodel.methods.token_lists import crops_of

if TYPE_CHECKING:
    from costmodel.methods.plan import MethodInput
    from costmodel.quantities import Num, OpCost

#: Kernels that look for NaN and infinity in what a method ranks by.
FINITE_KERNELS = 6


class Ranked(NamedTuple):
    """The crops whose patches are ranked.

    Attributes:
        images: batch x crops.
        patches: patches per crop.
        beside: 1 where each crop's class token goes to the projector as well (Video-LLaVA's videos
            as `transformers` runs them), and is not reduced; else 0.
        runs: 1 where there is anything to reduce, else 0.
    """

    images: Num
    patches: Num
    beside: Num
    runs: Num

    def left(self, given: MethodInput, kept: Num) -> Num:
        """Return a sample's tokens when each crop keeps `kept` patches."""
        return given.crops * (kept + self.beside) * self.runs


def ranked_crops(given: MethodInput) -> Ranked:
    """Return the crops of one request, patches and class token told apart."""
    images, tokens, runs = crops_of(given)
    beside = (tokens > given.tower.patches) * 1
    return Ranked(images, tokens - beside, beside, runs)


def class_row(given: MethodInput, crops: Ranked, layer: str = "") -> list[OpCost]:
    """Return the ops that recompute the class token's row of one layer, all heads, softmaxed.

    They include the mean of the keys over the heads, which every caller computes and VisionZip compares
    patches by. `layer` is appended to the ops' names.
    """
    tower, num = given.tower, given.precision.vision
    c, h, e = tower.hidden_size, tower.num_heads, tower.head_dim
    images, length, runs = crops.images, crops.patches + 1, crops.runs
    ops = [
        # Keys of several crops are laid out head by head before the batched product.
        gather("class_keys", images * length, c, num, runs * (images > 1)),
        product("class_scores", images * h, 1, length, e, num, runs),
        # Scaled, softmaxed into float32, and back.
        passes("class_softmax", images * h * length, num, reads=4, writes=4, kernels=3, flops=7,
               count=runs),
        passes("mean_keys", images * length * c, num, writes=1 / h, count=runs),
    ]  # fmt: skip
    return [op._replace(name=op.name + layer) for op in ops]
