"""Attention in one vision layer, as methods that rank patches by it recompute it.

The tower keeps its own kernel. The class token's row of one layer is computed again from the layer's
queries and keys: 2 (n+1) c FLOPs per crop of n patches in a tower of width c, softmaxed in float32. Where
there is no class token, it is the whole map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from costmodel.methods.keep import greatest
from costmodel.methods.pieces import FINITE_KERNELS, gather, passes, product, sort
from costmodel.methods.token_lists import crops_of

if TYPE_CHECKING:
    from costmodel.methods.plan import MethodInput
    from costmodel.methods.token_lists import Items
    from costmodel.models.geometry import Pieces
    from costmodel.quantities import Num, OpCost


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


def class_ranking(given: MethodInput, crops: Ranked) -> list[OpCost]:
    """Return the ops of the class token's attention to each patch, the mean over the heads of one layer."""
    h, num = given.tower.num_heads, given.precision.vision
    mean = passes(
        "mean_heads", crops.images * h * crops.patches, num, writes=1 / h, kernels=1 + FINITE_KERNELS,
        count=crops.runs,
    )  # fmt: skip
    return [*class_row(given, crops), mean]


def kept_patches(given: MethodInput, crops: Ranked, kept: Num) -> list[OpCost]:
    """Return the ops that sort the picks back into spatial order and copy the projected tokens."""
    num, d = given.precision.projector, given.model.text.hidden_size
    images, runs = crops.images, crops.runs
    return [
        sort("order", images, kept, num, runs),
        gather("kept_tokens", images * kept, d, num, runs),
        passes("class_token_beside", images * (kept + 1) * d, num, flops=0, count=runs * crops.beside),
    ]  # fmt: skip


def received_again(given: MethodInput, lists: Num, n: Num, runs: Num) -> list[OpCost]:
    """Return the ops of the attention that n merged tokens receive in a tower's last layer, in each list."""
    return _received(given, ((lists, n * given.tower.merge**2),), runs)


def received_by_merged(given: MethodInput, items: Items, layer: int = -1) -> list[OpCost]:
    """Return those of a layer, from 0 or from the end, for all images or clips before a merger.

    A frame of a clip attends to itself, and so does each window in a layer of windows.
    """
    stack = given.tower.stack
    kind = stack.kinds[stack.pattern[layer]]
    if given.seen is not None and any(getattr(block, "pieces", "") == "windows" for block in kind):
        pieces = tuple((given.batch_size * many, each) for many, each in given.seen.windows)
        return _received(given, pieces, items.runs)
    frames = greatest(given.crops // items.per_sample, 1)
    return received_again(given, items.lists * frames, items.tokens // frames, items.runs)


def _received(given: MethodInput, pieces: Pieces, runs: Num) -> list[OpCost]:
    tower, num = given.tower, given.precision.vision
    c, h = tower.hidden_size, tower.num_heads
    patches = sum(many * length for many, length in pieces)
    ops = [passes("rotate", patches * c, num, reads=11, writes=9, kernels=10, flops=6, count=runs)]
    for many, length in pieces:
        ops += [
            product("attention_again", many * h, length, length, tower.head_dim, num, runs),
            passes("received", many * h * length**2, num, reads=5, writes=3, kernels=4, flops=7,
                   count=runs),
        ]  # fmt: skip
    return ops
