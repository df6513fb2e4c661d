"""VisionZip: before the projector keep dominant patches, and merge the others into a few, per crop.

Source: Yang et al., CVPR 2025 (arXiv 2412.04467) and dvlab-research/VisionZip. The dominant tokens are
the class token and the patches it attends to most in vision layer -2. Every so many of the r others is a
contextual token, and each of the rest is averaged into the contextual one most similar to it by the mean
over heads of the keys. `keep` counts both in the published proportion of 54 to 10, the class token among
the dominant ones: 64 = 54 + 10, 128 = 108 + 20, 192 = 162 + 30.

Own FLOPs per crop, n patches, k tokens kept, m of them contextual, r = n + 1 - k joining, c width, e
head dim of the tower: 2 (n+1) c for the class token's row, 2 r m e for the similarities, 2 r m c for
the means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.methods.class_attention import class_row, ranked_crops, received_again
from costmodel.methods.info import MethodInfo
from costmodel.methods.keep import greatest, kept_count
from costmodel.methods.pieces import FINITE_KERNELS, gather, passes, product, sort
from costmodel.methods.plan import MethodInput, MethodPlan, before_layers
from costmodel.methods.token_lists import items_of
from costmodel.methods.tower import check_one_layer

if TYPE_CHECKING:
    from costmodel.quantities import Num

COUNT = 64


def contextual_tokens(count: Num) -> Num:
    """Return how many of `count` tokens are contextual: 10 of 64, rounded down.

    >>> contextual_tokens(64), contextual_tokens(128), contextual_tokens(192)
    (10, 20, 30)
    """
    return count * 10 // 64


def _merged_plan(given: MethodInput) -> MethodPlan:
    """The same behind a merger, by the attention that the patches of an image receive.

    Of n tokens of p patches: 2 h (p n)^2 e for the attention of the last layer again, 2 r m (e + d) for
    the contextual tokens, r = n - k joining, d width of the language model.
    """
    tower, items = given.tower, items_of(given)
    num, n, runs = given.precision.vision, items.tokens, items.runs
    h, e, d = tower.num_heads, tower.head_dim, given.model.text.hidden_size
    patches, lists = n * tower.merge**2, items.lists
    # Each pair of a clip's frames attends to itself.
    frames = greatest(given.crops // items.per_sample, 1)
    kept = kept_count("visionzip", given.keep, n)
    merged = contextual_tokens(kept)
    dominant, joining = kept - merged, n - kept
    merges = runs * (merged > 0)
    ops = (
        *received_again(given, lists * frames, n // frames, runs),
        passes("mean_keys", lists * patches * tower.hidden_size, num, writes=1 / h, kernels=2,
               count=runs),
        sort("rank", lists, n, num, runs),
        gather("dominant_tokens", lists * dominant, d, num, runs),
        product("similarity", lists, joining, merged, e, num, merges),
        passes("nearest", lists * joining * merged, num, reads=6, writes=6, kernels=12, flops=1,
               count=merges),
        product("merge", lists, merged, d, joining, num, merges),
        passes("average", lists * merged * d, num, reads=3, writes=2, kernels=4, flops=2,
               count=merges),
        passes("concatenate", lists * kept * d, num, flops=0, count=runs),
    )  # fmt: skip
    tokens = items.per_sample * kept * runs
    note = {"visionzip": "keep counts tokens of each image behind the merger: dominant, contextual"}
    return before_layers(given, tokens, ops, note)


def _plan(given: MethodInput) -> MethodPlan:
    if given.tower.native:
        return _merged_plan(given)
    check_one_layer("visionzip", given)
    tower, crops = given.tower, ranked_crops(given)
    num, c, h, e = given.precision.vision, tower.hidden_size, tower.num_heads, tower.head_dim
    images, n, runs = crops.images, crops.patches, crops.runs
    kept = kept_count("visionzip", given.keep, n)
    merged = contextual_tokens(kept)
    dominant, joining = kept - merged, n + 1 - kept
    merges = runs * (merged > 0)
    ops = [
        *class_row(given, crops),
        passes("with_class_token", images * (n + 1) * c, num, kernels=2, flops=0, count=runs),
        passes("sum_heads", images * h * (n + 1), num, writes=1 / h, kernels=1 + FINITE_KERNELS,
               count=runs),
        passes("normalise_keys", images * (n + 1) * e, num, reads=2, kernels=3 + FINITE_KERNELS,
               flops=3, count=runs),
        sort("rank", images, n, num, runs),
        sort("order", images, dominant, num, runs),
        gather("dominant_tokens", images * dominant, c, num, runs),
        sort("others", images, n + 1, num, merges),
        sort("joining", 1, n + 1 - dominant, num, merges),
        gather("joining_keys", images * (n + 1 - dominant), e, num, merges, kernels=4),
        product("similarity", images, joining, merged, e, num, merges),
        # The nearest contextual token of each, as a row of zeros and a one.
        passes("nearest", images * joining * merged, num, reads=6, writes=6, kernels=12, flops=1,
               count=merges),
        gather("joining_tokens", images * (n + 1 - dominant), c, num, merges, kernels=2),
        product("merge", images, merged, c, joining, num, merges),
        passes("average", images * merged * c, num, reads=3, writes=2, kernels=4, flops=2,
               count=merges),
        passes("concatenate", images * kept * c, num, flops=0, count=runs),
    ]  # fmt: skip
    tokens = given.crops * kept * runs
    note = {"visionzip": "keep counts tokens of each crop: dominant, class token, contextual"}
    return before_layers(given, tokens, ops, note, projected=tokens)


INFO = MethodInfo(
    name="visionzip",
    schedule=_plan,
    place="after-vision",
    summary="keep the patches the class token attends to, merge the others into a few",
    formula="keep tokens per crop, m = 10/64 of them merged; 2(n+1)c + 2rm(e + c) FLOPs, r = n + 1 - k",
    complexity="O(n m c) per crop",
    source="Yang et al. 2025, VisionZip, arXiv 2412.04467; dvlab-research/VisionZip",
    default_text="64 tokens of each crop: 54 dominant, the class token among them, 10 contextual",
    needs_text="the class token's attention and the keys of vision layer -2",
    published=("54 + 10, 108 + 20 and 162 + 30 of 576 tokens",),
    needs_class_token=True,
    on_merged=True,
    needs=frozenset({"clip_attention", "clip_keys"}),
    keep_meaning="tokens of each crop: dominant ones, the class token and 10 merged of 64",
    default_keep=COUNT,
    recomputes="the class token's row of scores in vision layer -2; behind a merger the last layer's map",
)
