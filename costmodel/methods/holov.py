"""HoloV: after the projector share the count among chunks of each crop, by attention and variety.

Source: Zou et al., NeurIPS 2025 (arXiv 2510.02912) and obananas/HoloV. The raster sequence of n patches is
cut into P = 16 chunks. A chunk's weight is the mean over its tokens of their class attention and of how
much their cosines with the rest of the chunk vary; its quota of the K tokens follows the weight, and within
it the class token's attention decides. Where a quota is beyond its chunk, zero vectors fill up to K.

Behind the merger of a tower of native resolution, an image is cut into int(16 n / 9 K) chunks of its merged
tokens, which are ranked by the attention that they receive in the tower's last layer.

Own FLOPs per crop, chunks of s = ceil(n / P) tokens of width d, tower width c: 2 (n+1) c for the class
token's row, 2 P s^2 d for the cosines; behind a merger the last layer's map again in place of the row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.methods.class_attention import class_ranking, ranked_crops, received_by_merged
from costmodel.methods.info import MethodInfo
from costmodel.methods.keep import kept_count, least
from costmodel.methods.options import Option, optional, whole
from costmodel.methods.pieces import FINITE_KERNELS, gather, passes, product, sort
from costmodel.methods.plan import MethodInput, MethodPlan, before_layers
from costmodel.methods.token_lists import items_of

if TYPE_CHECKING:
    from costmodel.quantities import Num

COUNT = 64
#: Chunks of a crop's patches.
FEW = 16
CHUNKS = Option(
    "chunks",
    None,
    optional(whole(1)),
    "consecutive pieces of the raster order; None is 16, behind a merger int(16 n / 9 K)",
)


def chunk_shape(n: Num, chunks: Num) -> tuple[Num, Num]:
    """Return how many chunks n tokens are cut into, and the tokens of the longest.

    >>> chunk_shape(576, 16), chunk_shape(10, 16), chunk_shape(35, 16)
    ((16, 36), (10, 1), (16, 3))
    """
    pieces = least(n, chunks)
    return pieces, -(-n // (pieces + (pieces == 0)))


def chunks_of(asked: int | None, n: Num, kept: Num) -> Num:
    """Return the chunks of an image's merged tokens, of which `kept` stay.

    >>> chunks_of(None, 1369, 152), chunks_of(None, 100, 100), chunks_of(5, 1369, 152)  # 16.01; 1.78
    (16, 1, 5)
    """
    return 16 * n // (9 * kept + (kept == 0)) if asked is None else asked


def _plan(given: MethodInput) -> MethodPlan:
    d, num, asked = given.model.text.hidden_size, given.precision.projector, CHUNKS.of(given)
    beside: Num
    chunks: Num
    if given.tower.native:
        items = items_of(given)
        images, n, runs, beside = items.lists, items.tokens, items.runs, 0
        kept = kept_count("holov", given.keep, n)
        left, chunks = items.per_sample * kept * runs, chunks_of(asked, n, kept)
        ranking, unit = received_by_merged(given, items), "image"
    else:
        crops = ranked_crops(given)
        images, n, runs, beside = crops.images, crops.patches, crops.runs, crops.beside
        kept = kept_count("holov", given.keep, n)
        left, chunks = crops.left(given, kept), asked or FEW
        ranking, unit = class_ranking(given, crops), "crop"
    pieces, size = chunk_shape(n, chunks)
    tokens, pairs = images * pieces * size, images * pieces * size * size
    ops = [
        *ranking,
        passes("normalise", images * n * d, num, reads=2, writes=1, kernels=3 + FINITE_KERNELS,
               flops=3, count=runs),
        gather("chunks", tokens, d, num, runs, kernels=3),
        product("cosine", images * pieces, size, size, d, num, runs),
        passes("variance", pairs, num, reads=7, writes=4, kernels=16, flops=6, count=runs),
        passes("scores", tokens, num, reads=16, writes=10, kernels=34, flops=8, count=runs),
        sort("weights", images, pieces, num, 2 * runs),
        sort("rank", images, n, num, 3 * runs),
        gather("kept_tokens", images * kept, d, num, runs, kernels=3),
        passes("class_token_beside", images * (kept + 1) * d, num, flops=0, count=runs * beside),
    ]  # fmt: skip
    note = {"holov": f"keep counts tokens of each {unit}, zero vectors among them"}
    return before_layers(given, left, ops, note)


INFO = MethodInfo(
    name="holov",
    schedule=_plan,
    place="after-projector",
    summary="share the count among chunks of each crop, and keep what the class token looks at in each",
    formula="round(keep n) tokens per crop; 2(n+1)c + 2 P ceil(n/P)^2 d FLOPs, P = 16 or 16n/9K",
    complexity="O(n^2 d / P + n c) per crop",
    source="Zou et al. 2025, HoloV, arXiv 2510.02912; obananas/HoloV",
    default_text=f"{COUNT} tokens of each crop",
    needs_text="the class token's attention in vision layer -2",
    by_crop=True,
    on_merged=True,
    needs_class_token=True,
    needs=frozenset({"clip_attention"}),
    keep_meaning="tokens of each crop, zero vectors among them where a quota is beyond its chunk",
    default_keep=COUNT,
    options=(CHUNKS,),
    published=("192, 128 and 64 of 576 tokens, 16 chunks",),
    recomputes="the class token's row of scores in vision layer -2; behind a merger the last layer's map",
)
