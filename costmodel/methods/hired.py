"""HiRED: after the projector a budget of tokens for each tile of an image, spent by class attention.

Source: Arif et al., AAAI 2025 (arXiv 2408.10945) and hasanar1f/HiRED. An image of c crops of n patches
gets a budget of int(c n keep) tokens. A share alpha of it, at most n, goes to the crop of the whole image,
the rest to the tiles by the class attention of vision layer 0 that falls on their part. Each crop keeps
the patches with the most class attention in layer -2; newline tokens all stay. An image that is not tiled
keeps int(keep x n) patches.

How much of a tile's budget falls on patches that the model cuts off as padding depends on the image. The
expected count assumes that the picks spread evenly over a tile and that truncation loses nothing; without
padding it is at most a few tokens per tile off.

Own FLOPs per crop, tower width w: 4 (n+1) w for the class token's row in two layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from costmodel.methods.class_attention import class_row, ranked_crops
from costmodel.methods.info import MethodInfo
from costmodel.methods.keep import greatest, kept_count, least, share
from costmodel.methods.options import Option, fraction
from costmodel.methods.pieces import gather, passes, sort
from costmodel.methods.plan import MethodInput, MethodPlan, before_layers
from costmodel.methods.token_lists import is_clip
from hardware_specs.errors import UnsupportedError

if TYPE_CHECKING:
    from costmodel.models.anyres import AnyRes
    from costmodel.quantities import Num

RATIO = 0.2
ALPHA = Option("alpha", 0.5, fraction(0.0, 1.0), "the whole image's share of it")


def newline_tokens(anyres: AnyRes, tiles: Num, tokens: Num) -> Num:
    """Return how many of a mosaic's `tokens` are newlines: one per row that is left of its `tiles`.

    The mosaic loses rows, or columns, in pairs. Papers count none of its newlines: 0 for as many tokens as
    patches.

    >>> from costmodel import load_model
    >>> newline_tokens(load_model("llava-next-vicuna-7b").anyres, 4, 36 * 48 + 36)
    36
    """
    grid = anyres.grid
    found: Num = 0 * (tokens + tiles)
    for height, width in anyres.resolutions:
        rows, columns = (side // anyres.crop_size * grid for side in (height, width))
        here = (rows * columns == tiles * grid**2) & (tokens != rows * columns) & (found == 0)
        left = tokens // (columns + 1)
        cut_rows = (left * (columns + 1) == tokens) & (left <= rows) & ((rows - left) % 2 == 0)
        wide = tokens // rows
        cut_columns = (
            (wide * rows == tokens) & (wide <= columns + 1) & ((columns + 1 - wide) % 2 == 0)
        )
        found = found + here * (cut_rows * left + (1 - 1 * cut_rows) * cut_columns * rows)
    return found


def kept_tokens(given: MethodInput, n: Num) -> tuple[Num, Num, Num]:
    """Return the tokens expected to be left of one sample, the fewest and the most of any picture.

    Each image has its own budget. The fewest are left where all that the tiles may keep is padding.
    """
    keep = given.keep
    anyres, images = given.model.anyres, greatest(given.images, 1)
    if anyres is None:
        kept: Num = given.crops * kept_count("hired", keep, n, "down")
        return kept, kept, kept
    crops = given.crops // images
    budget = kept_count("hired", keep, crops * n, "down")
    whole = least(share(ALPHA.of(given), budget, "down"), n)
    tiles = greatest(crops - 1, 0)
    rest = least(budget - whole, tiles * n)
    mosaic = greatest(given.visual_tokens // images - n, 0)
    newlines = newline_tokens(anyres, tiles, mosaic)
    shown = (mosaic - newlines) / greatest(tiles * n, 1)
    on_tiles = rest * np.minimum(shown, 1) + 0.5
    expected = whole + on_tiles // 1 + newlines
    each = given.visual_tokens // images
    counts = (expected, whole + newlines, whole + rest + newlines)
    left, fewest, most = (images * least(count, each) for count in counts)
    return (left if isinstance(left, np.ndarray) else int(left)), fewest, most


def _is_video(given: MethodInput) -> bool:
    """Whether the crops are frames: where a model takes both, several untiled crops are a clip."""
    model = given.model
    frames = is_clip(given) | (model.video is not None and model.anyres is None)
    return given.framed or bool(np.any(frames & (given.crops > given.images)))


def _plan(given: MethodInput) -> MethodPlan:
    if _is_video(given):
        raise UnsupportedError("hired spends a budget on the tiles of an image, not on videos")
    crops, h = ranked_crops(given), given.tower.num_heads
    num, n, images, runs = given.precision.vision, crops.patches, crops.images, crops.runs
    kept, fewest, most = kept_tokens(given, n)
    tokens = (kept + given.crops * crops.beside) * runs
    each = kept * runs / greatest(given.crops, 1)
    tiled = runs * (given.model.anyres is not None) * given.images
    samples, d = given.batch_size, given.model.text.hidden_size
    ops = [
        *class_row(given, crops, "[first]"),
        *class_row(given, crops, "[last]"),
        passes("sum_heads", 2 * images * h * n, num, writes=1 / h, kernels=2, count=runs),
        # The host reads how many tokens each tile gets.
        sort("marked", 1, n, num, samples * tiled),
        passes("tile_shares", n, num, reads=6, writes=4, kernels=12, flops=4, count=samples * tiled),
        sort("rank", 1, n, num, images * runs),
        sort("order", 1, each, num, images * runs),
        gather("kept_tokens", samples * tokens, d, given.precision.projector, runs),
    ]  # fmt: skip
    note = {"hired": "tiles: the count expected if the picks spread evenly over a tile's patches"}
    warned = []
    if not isinstance(kept, np.ndarray) and most > fewest:
        warned.append(
            f"hired is priced with {kept} tokens left of {_noun(given.images)} cut into tiles: how many of "
            f"a tile stay depends on the picture's attention, and it may be {fewest} to {most}"
        )
    return before_layers(given, tokens, ops, note)._replace(warnings=tuple(warned))


def _noun(images: Num) -> str:
    return "an image" if images == 1 else f"{images} images"


INFO = MethodInfo(
    name="hired",
    schedule=_plan,
    place="after-projector",
    summary="a budget of tokens for each tile of an image, spent by class attention",
    formula="int(c n keep) tokens of c crops, and newlines; 4(n+1)w FLOPs per crop",
    complexity="O(n w) per crop",
    source="Arif et al. 2025, HiRED, arXiv 2408.10945; hasanar1f/HiRED",
    default_text="20 % of the patches of all crops, half of them of the whole image",
    needs_text="the class token's attention in vision layers 0 and -2; images, not videos",
    published=("20 % of LLaVA-NeXT's tokens, alpha 0.5",),
    by_crop=True,
    needs_class_token=True,
    needs=frozenset({"clip_attention"}),
    keep_meaning="budget of patches of all crops; newline tokens come on top",
    default_keep=RATIO,
    rounding="down",
    variants=("program", "paper"),
    options=(ALPHA,),
    count_known=False,
    recomputes="the class token's rows of scores in vision layers 0 and -2",
)
