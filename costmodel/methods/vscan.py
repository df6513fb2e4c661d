"""VScan: local and global patches of each crop with the others merged into them, and a cut half-way.

Source: Zhang et al., TMLR 2026 (arXiv 2505.22654) and Tencent/SelfEvolvingAgent. Of a budget of K patches
half are local: each window of 6 x 6 of the grid gives those that the class token attends to most in vision
layer 5 (from 0); the others are what it attends to most in layer -2. Behind the projector every patch that
is left joins its most similar kept one, as a mean. At the entry of the language model's middle layer (16 of
32) a third of these tokens stay, by the last token's attention, as PyramidDrop ranks. "64 tokens" is 96 and
32, on average.

Own FLOPs per crop, n patches in a tower of width c, m kept, r = n - m, d width of the language model: 2 x 2
(n+1) c for two rows of scores, 2 r m d for the cosines and 2 r m d for the means; at the cut those of a
stage of PyramidDrop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.methods.class_attention import class_row, ranked_crops
from costmodel.methods.info import MethodInfo
from costmodel.methods.keep import kept_count
from costmodel.methods.llm_ranking import cut_layers
from costmodel.methods.options import Option, Values, fraction, optional, whole
from costmodel.methods.pieces import FINITE_KERNELS, gather, in_layer, passes, product, sort
from costmodel.methods.plan import MethodInput, MethodPlan, between_layers
from costmodel.methods.pyramiddrop import last_row_stage
from costmodel.methods.v2drop import left_of
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from costmodel.quantities import Num, OpCost

COUNT = 96
#: Sides of the windows of the published grid of 24 x 24.
WINDOW = 6
SHALLOW = Option("shallow", 5, whole(0), "vision layer of the local patches, from 0")
CUT = Option(
    "cut",
    None,
    optional(Values(whole(1).parse, "a layer from 1,")),
    "language-model layer of the second stage; None is the middle one",
)
DEEP = Option("deep", 1 / 3, fraction(0.0, 1.0, above=True), "share that the cut leaves")


def window_side(side: int) -> int:
    """Return patches along a side of a window: the largest divisor of the grid's side up to 6.

    >>> window_side(24), window_side(16), window_side(7)
    (6, 4, 1)
    """
    return max((size for size in range(1, WINDOW + 1) if side % size == 0), default=1)


def split_budget(count: Num, side: int) -> tuple[Num, Num]:
    """Return the local patches of each window, and the global ones, of a budget.

    >>> split_budget(96, 24), split_budget(100, 24)  # 16 windows; 2 of 50 local places are not given
    ((3, 48), (3, 50))
    """
    windows = (side // window_side(side)) ** 2
    return count // 2 // windows, count - count // 2


def cut_layer(layers: int, asked: int | None) -> int:
    """Return the layer at whose entry the second stage cuts.

    Raises:
        InvalidInputError: a layer the model does not have, or none in the middle.

    >>> cut_layer(32, None), cut_layer(28, None), cut_layer(32, 8)
    (16, 14, 8)
    """
    if asked is None and layers < 2:
        raise InvalidInputError(f"vscan cuts at a middle layer, and {layers} layers have none")
    (cut,) = cut_layers("vscan", (layers // 2 if asked is None else asked,), layers, option="cut")
    return cut


def _before(given: MethodInput, kept: Num, local: Num) -> list[OpCost]:
    tower, crops, d = given.tower, ranked_crops(given), given.model.text.hidden_size
    num, own = given.precision.projector, given.precision.vision
    images, n, runs, h = crops.images, crops.patches, crops.runs, tower.num_heads
    rest = n - kept
    merges = runs * (rest > 0)
    return [
        *class_row(given, crops, "[shallow]"),
        *class_row(given, crops, "[deep]"),
        passes("mean_heads", 2 * images * h * n, own, writes=1 / h,
               kernels=2 * (1 + FINITE_KERNELS), count=runs),
        gather("windows", images * n, 1, own, runs),
        sort("rank_local", images, n, own, runs * (local > 0)),
        passes("without_local", images * n, own, kernels=2, count=runs),
        sort("rank", images, n, own, runs),
        sort("order", images, kept, num, runs),
        sort("others", images, n, num, runs),
        passes("normalise", images * n * d, num, reads=3, writes=2, kernels=3 + FINITE_KERNELS,
               flops=3, count=runs),
        gather("kept_and_others", 2 * images * n, d, num, runs, kernels=6),
        product("similarity", images, rest, kept, d, num, merges),
        passes("nearest", images * rest * kept, num, reads=6, writes=6, kernels=9, flops=1,
               count=merges),
        product("merge", images, kept, d, rest, num, merges),
        passes("average", images * kept * d, num, reads=3, writes=2, kernels=5, flops=2,
               count=merges),
        passes("class_token_beside", images * (kept + 1) * d, num, flops=0, count=runs * crops.beside),
    ]  # fmt: skip


def _plan(given: MethodInput) -> MethodPlan:
    tower, crops = given.tower, ranked_crops(given)
    if SHALLOW.of(given) >= tower.num_layers:
        raise InvalidInputError(
            f"vscan looks at vision layer {SHALLOW.of(given)}, and this tower has layers 0 to "
            f"{tower.num_layers - 1}; give shallow="
        )
    cut = cut_layer(given.model.text.num_layers, CUT.of(given))
    each, others = split_budget(
        kept_count("vscan", given.keep, crops.patches), side := round(tower.patches**0.5)
    )
    local = each * (side // window_side(side)) ** 2
    n = crops.left(given, local + others)
    left = left_of(DEEP.of(given), n)
    ops = [
        *_before(given, local + others, local),
        *in_layer(last_row_stage(given, n, left, (n > 0) * 1), cut),
    ]
    note = {"vscan": "keep counts patches of each crop before the cut; deep is what the cut leaves"}
    return between_layers(given, (cut,), (n, left), ops, note)


INFO = MethodInfo(
    name="vscan",
    schedule=_plan,
    place="after-projector",
    second_place="llm-layer",
    summary="keep local and global patches with the others merged in, and a third of them half-way",
    formula="keep tokens per crop, a third of them half-way on; 4(n+1)c + 4rmd, 2sdke + 2dhe + 2she FLOPs",
    complexity="O(n m d) per crop, O(s d k e) at one layer",
    source="Zhang et al. 2026, VScan, arXiv 2505.22654; Tencent/SelfEvolvingAgent",
    default_text=f"{COUNT} patches of each crop, 32 from the middle layer on: 64 on average",
    needs_text="the class token's attention in vision layers 5 and -2; keys and last query of layer 16",
    by_crop=True,
    needs_class_token=True,
    needs=frozenset({"clip_attention", "llm_query", "llm_keys"}),
    keep_meaning="patches of each crop before the cut inside the language model",
    default_keep=COUNT,
    options=(SHALLOW, CUT, DEEP),
    published=(
        "96, 192 and 288 of 576, a third of them from layer 16 on: called 64, 128 and 192",
        "Qwen2.5-VL: 0.167 of the tokens, 0.333 of them from layer 14 on",
    ),
    asks_question=True,
    recomputes="the class token's rows in two vision layers; norm, keys and last query of the middle layer",
)
