"""Baselines that rank nothing: sequential and spatial sampling before the projector, random behind it.

Source: Shang et al. 2024 (arXiv 2403.15388) Table 4, which compares the first two with PruMerge at 40, 35 and
16 tokens; random picks are the baseline of half of the papers and of VTC-Bench. They cost no FLOPs and one
copy of the kept tokens. A spatial count must have a grid: rows x columns.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from costmodel.methods.class_attention import ranked_crops
from costmodel.methods.info import MethodInfo
from costmodel.methods.keep import by_pair, kept_count
from costmodel.methods.options import CELLS, Option, optional, whole
from costmodel.methods.pieces import gather
from costmodel.methods.plan import MethodInput, MethodPlan, before_layers
from costmodel.methods.token_lists import items_of
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from costmodel.quantities import Num

#: PruMerge's Table 4, TextVQA and MME.
COUNT = 40
RANDOM_COUNT = 64
SEED = Option("seed", 0, whole(0), "of the random picks")
GRID = Option(
    "grid",
    None,
    optional(CELLS),
    "the grid itself; None is the squarest with keep cells",
    for_keep=True,
)


def _sequential(given: MethodInput) -> MethodPlan:
    return _copies(
        "sequential", given, kept_count("sequential", given.keep, ranked_crops(given).patches)
    )


def _spatial(given: MethodInput) -> MethodPlan:
    n, cells = ranked_crops(given).patches, GRID.of(given)
    asked = n if cells is not None else kept_count("spatial", given.keep, n)
    count = partial(_spatial_count, cells=cells, variant=given.variant)
    return _copies("spatial", given, by_pair(count, n, asked))


def _random(given: MethodInput) -> MethodPlan:
    per_sample, lists, n, runs = items_of(given)
    kept = kept_count("random", given.keep, n)
    d, num = given.model.text.hidden_size, given.precision.projector
    # Picked on the host; the device gets their places.
    copy = gather("kept_tokens", lists * kept, d, num, runs)
    return before_layers(given, per_sample * kept * runs, [copy], {})


def _copies(name: str, given: MethodInput, kept: Num) -> MethodPlan:
    crops, num = ranked_crops(given), given.precision.vision
    copy = gather("kept_tokens", crops.images * kept, given.feature_width, num, crops.runs)
    tokens, note = crops.left(given, kept), {name: "keep counts tokens of each crop"}
    return before_layers(given, tokens, [copy], note, projected=tokens)


def strided_indices(n: int, count: int) -> list[int]:
    """Return HiRED's one-dimensional sampling: arange(0, n-1, n // count).

    >>> strided_indices(10, 4)  # 10 // 4 = 2
    [0, 2, 4, 6, 8]
    """
    return list(range(0, n - 1, n // count)) if n > 1 else [0]


def squarest_grid(count: int, height: int, width: int) -> tuple[int, int]:
    """Return the (rows, columns) with rows * columns = count that is closest to a square.

    Raises:
        InvalidInputError: `count` has no such factors; names the nearest counts that have.

    >>> squarest_grid(40, 24, 24), squarest_grid(36, 24, 24)
    ((5, 8), (6, 6))
    """
    found = _factors(count, height, width)
    if found is not None:
        return found
    near = sorted(range(1, height * width + 1), key=lambda other: abs(other - count))
    fitting = (other for other in near if _factors(other, height, width) is not None)
    raise InvalidInputError(
        f"spatial: {count} tokens form no grid within {height} x {width} patches; the nearest "
        f"counts that do are {' and '.join(map(str, sorted(islice(fitting, 2))))}"
    )


def _factors(count: int, height: int, width: int) -> tuple[int, int] | None:
    for rows in range(math.isqrt(count), 0, -1):
        columns = count // rows
        if rows * columns != count:
            continue
        if rows <= height and columns <= width:
            return rows, columns
        if columns <= height and rows <= width:
            return columns, rows
    return None


def _spatial_count(
    n: int, kept: int, cells: tuple[int, int] | None = None, variant: str = "program"
) -> int:
    """Return how many of a square of n patches spatial sampling keeps; refuse where there is no grid."""
    if n == 0 or kept == 0:
        return 0
    if variant == "strided":
        if cells is not None:
            raise InvalidInputError("the strided variant takes keep, it has no grid")
        return len(strided_indices(n, kept))
    side = math.isqrt(n)
    rows, columns = squarest_grid(kept, side, side) if cells is None else cells
    if not (rows <= side and columns <= side):
        raise InvalidInputError(f"a grid of {rows} x {columns} does not fit {side} x {side}")
    return rows * columns


SEQUENTIAL = MethodInfo(
    name="sequential",
    place="after-vision",
    source="Shang et al. 2024, LLaVA-PruMerge, arXiv 2403.15388 Table 4 (no program)",
    summary="the first tokens in raster order: a baseline",
    formula="keep tokens per crop; no FLOPs",
    complexity="O(m d)",
    schedule=_sequential,
    default_keep=COUNT,
    default_text=f"{COUNT} tokens per crop",
    published=("40, 35 and 16 tokens",),
)
SPATIAL = replace(
    SEQUENTIAL,
    name="spatial",
    summary="an evenly spaced grid of tokens: a baseline",
    schedule=_spatial,
    default_text=f"{COUNT} tokens per crop (5 x 8)",
    variants=("program", "strided"),
    options=(GRID,),
    published=("6x6, 5x8, 8x5, 5x7, 7x5, 4x4",),
)
RANDOM = MethodInfo(
    name="random",
    place="after-projector",
    source="a baseline of many papers (DivPrune Table 4, VTC-Bench); no program of its own",
    summary="so many tokens at random: a baseline",
    formula="round(keep n) tokens of each image or clip; no FLOPs",
    complexity="O(m d)",
    schedule=_random,
    default_keep=RANDOM_COUNT,
    default_text=f"{RANDOM_COUNT} tokens of each image",
    options=(SEED,),
)
INFOS = (SEQUENTIAL, SPATIAL, RANDOM)
