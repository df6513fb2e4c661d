"""PruMerge and PruMerge+: after the vision tower, before the projector, per crop.

Source: Shang et al. 2024 (arXiv 2403.15388) and 42Shawn/LLaVA-PruMerge. m patches are chosen by the
class token's attention, all others are merged into them, and one merged token comes on top: the
projector and the language model see m + 1 tokens per crop. PruMerge+ adds an evenly spaced grid of
step int(int(1/ratio) / 3), about 3 m patches for small m, of which the share m/n was chosen already.

Own FLOPs per crop, n patches, p kept (m, or m and the grid), c width of the keys, d of the features:
2 (n+1) c for the class token's row, 2 p n c for the similarities, 2 n d for the token merged from all
that is pruned. The 32 neighbours of each kept token are added by a weighted gather, 64 p d operations
that no counter calls FLOPs. The authors' program computes the whole attention to use one row of it,
2 (n+1)^2 c: 0.68 GFLOP at 577 tokens.

m depends on the image. The paper's means: 5.5 % of 576, about 32 (Table 1), with 40 on TextVQA and MME,
35 on POPE and 16 on ScienceQA (Table 4); PruMerge+ 25 %; 12.5 % and 25 % on Video-LLaVA (Table 3).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from costmodel.methods.class_attention import ranked_crops
from costmodel.methods.info import MethodInfo
from costmodel.methods.keep import by_pair, first, kept_count, of_rows, share, some
from costmodel.methods.options import Option, whole
from costmodel.methods.pieces import gather, passes, product, sort
from costmodel.methods.plan import MethodInput, MethodPlan, before_layers
from costmodel.ops.linear import linear
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from costmodel.quantities import Num, OpCost

#: Tokens merged into each kept one.
NEIGHBOURS = Option("neighbours", 32, whole(0), "tokens merged into each kept one")
#: Mean counts of chosen tokens on LLaVA-1.5, arXiv 2403.15388 Table 4.
PUBLISHED_COUNTS = {"TextVQA": 40, "MME": 40, "POPE": 35, "SQA": 16}
#: Mean shares of the patches, Tables 1 and 3: images, video.
CHOSEN_SHARE = (0.055, 0.125)
PLUS_SHARE = 0.25


def spatial_supplement(n: int, ratio: float) -> range:
    """Return the grid positions that PruMerge+ adds, before those already kept are taken out.

    Formula: arange(0, n-1, int(int(1/ratio) / 3)).

    Raises:
        InvalidInputError: a ratio of 0 or above 1/3, for which the program divides by zero.

    >>> len(spatial_supplement(576, 32 / 576)), len(spatial_supplement(576, 40 / 576))
    (96, 144)
    >>> spatial_supplement(576, 0.2)  # above 1/6 the step is 1: everything but the last patch
    range(0, 575)
    """
    if not ratio > 0:
        raise InvalidInputError(
            "prumerge+ found no outlier, so its grid step 1/ratio is undefined; "
            "give keep, or use prumerge"
        )
    step = int(int(1 / ratio) / 3)
    if step < 1:
        raise InvalidInputError(
            f"prumerge+ at a ratio of {ratio:.3g}, above 1/3, has a grid step of 0; "
            "give a smaller keep, or use prumerge"
        )
    return range(0, n - 1, step)


def grid_tokens(n: Num, chosen: Num) -> Num:
    """Return how many grid patches PruMerge+ adds on average to `chosen` of `n` patches.

    A share chosen/n of the grid was kept already.

    Raises:
        InvalidInputError: no patch chosen, or more than a third, for which the step is undefined.

    >>> grid_tokens(576, 32), grid_tokens(576, 40)  # 96 and 144, less the share chosen
    (91, 134)
    """
    return by_pair(_grid_tokens, n, chosen)


def _grid_tokens(n: int, chosen: int) -> int:
    if n == 0:
        return 0
    if not 0 < chosen <= n / 3:
        raise InvalidInputError(
            f"prumerge+ with {chosen:g} of {n:g} patches chosen by attention has no grid: its step "
            "int(int(1/ratio)/3) needs from 1 patch to a third of them; give another keep"
        )
    return round(len(spatial_supplement(int(n), chosen / n)) * (1 - chosen / n))


def prumerge_ops(given: MethodInput, kept: Num, *, adaptive: bool) -> tuple[OpCost, ...]:
    """Return the own ops of PruMerge and PruMerge+, which keep `kept` patches per crop in all.

    An adaptive count comes from the outliers, which asks for quartiles.
    """
    tower, crops = given.tower, ranked_crops(given)
    images, n, runs = crops.images, crops.patches, crops.runs
    num, c, d = given.precision.vision, tower.hidden_size, given.feature_width
    paper, neighbours = given.variant == "paper", NEIGHBOURS.of(given)
    ops: list[OpCost] = []
    if given.vision_layers < tower.num_layers and not paper:
        # The queries and keys of the last layer, which a tower cut short does not compute.
        ops += [
            linear("last_q_proj", c, c, num, bias=True)(images, runs),
            linear("last_k_proj", c, c, num, bias=True)(images * (n + 1), runs),
        ]
    ops += [
        product("class_scores", images, 1, n + 1, c, num, runs),
        passes("class_softmax", images * (n + 1), num, reads=2, writes=2, kernels=2, flops=6,
               count=runs),
        sort("rank", images, n, num, runs),
    ]  # fmt: skip
    if adaptive:
        ops += [
            sort("quartiles", 1, images * n, num, runs),
            passes("outliers", images * n, num, reads=3, writes=2, kernels=8, flops=3, count=runs),
        ]
    if not paper:
        ops += [passes("key_norms", images * n * c, num, reads=1, writes=0, kernels=2, flops=2,
                       count=runs)]  # fmt: skip
    # The program divides by the norms and masks; the paper's dot products are only masked.
    reads, kernels = (1, 1) if paper else (3, 2)
    ops += [
        gather("chosen_keys", images * kept, c, num, runs, kernels=1 if paper else 3),
        product("similarity", images, kept, n, c, num, runs),
        passes("cosine", images * kept * n, num, reads=reads, writes=kernels, kernels=kernels,
               count=runs),
        sort("neighbours", images * kept, n, num, runs),
        # One weighted gather of the neighbours' rows per kept token, and the kept tokens themselves.
        passes("merge", images * kept * d, num, reads=neighbours + 2, writes=3, kernels=8,
               flops=2 * neighbours + 1, count=runs),
    ]  # fmt: skip
    if not paper:
        ops += [
            product("merge_pruned", images, 1, d, n, num, runs),
            passes("concatenate", images * (kept + 1) * d, num, kernels=1, flops=0, count=runs),
        ]
    return tuple(ops)


def _plan(given: MethodInput, name: str, kept: Num, note: str) -> MethodPlan:
    crops = ranked_crops(given)
    n = crops.patches
    neighbours, extra = NEIGHBOURS.of(given), given.variant == "program"
    none = (n > 0) & (kept + extra * (name == "prumerge") < 1)
    if some(none):
        error = InvalidInputError(
            f"{name} at the paper's mean share chooses no patch of the {first(n, none):g} in a crop; "
            "give keep as a count, or more visual_tokens"
        )
        raise of_rows(error, none)
    short = extra & (n > 0) & (n <= neighbours) & (kept > 0)
    if some(short):
        error = InvalidInputError(
            f"{name} merges {neighbours} neighbours into each kept token, so a crop needs at least "
            f"{neighbours + 1} patches, not {first(n, short):g}"
        )
        raise of_rows(error, short)
    tokens = crops.left(given, kept + extra)
    ops = prumerge_ops(given, kept, adaptive=given.keep is None)
    return before_layers(given, tokens, ops, {name: note}, projected=tokens)


def _prumerge(given: MethodInput) -> MethodPlan:
    n = ranked_crops(given).patches
    top = "" if given.variant == "paper" else "; one merged token on top"
    if given.keep is None:
        chosen = share(CHOSEN_SHARE[given.model.takes_clips], n)
        note = "expected count: the paper's mean share of the patches, and one merged token"
    else:
        chosen = kept_count("prumerge", given.keep, n, "down")
        note = f"keep counts the patches chosen in each crop{top}"
    return _plan(given, "prumerge", chosen, note)


def _prumerge_plus(given: MethodInput) -> MethodPlan:
    crops = ranked_crops(given)
    n, runs = crops.patches, crops.runs
    paper = given.variant == "paper"
    if given.keep is None:
        kept = share(PLUS_SHARE, n) - (0 if paper else runs)
        note = "expected count: the paper's mean share of the patches, the merged token included"
    elif paper:
        # As many patches, evenly spaced, as attention chose.
        kept = 2 * kept_count("prumerge+", given.keep, n, "down")
        if some(kept > n):
            raise InvalidInputError(
                f"prumerge+ as the paper has it keeps {np.max(kept):g} tokens, but there are "
                f"{np.max(n):g}; give a keep of at most {np.max(n) // 2:g}"
            )
        note = "keep counts the patches chosen by attention in each crop; as many again are added"
    else:
        chosen = kept_count("prumerge+", given.keep, n, "down")
        kept = chosen + grid_tokens(n, chosen)
        note = "keep counts the patches chosen by attention in each crop; grid expected on average"
    return _plan(given, "prumerge+", kept, note)


def _program_flops(given: MethodInput) -> Num:
    """What the authors' program counts for the attention it recomputes: 2 (n+1)^2 c per crop."""
    crops, c = ranked_crops(given), given.tower.hidden_size
    return 2 * crops.images * (crops.patches + 1) ** 2 * c * crops.runs


PRUMERGE = MethodInfo(
    name="prumerge",
    place="after-vision",
    source="Shang et al. 2024, LLaVA-PruMerge, arXiv 2403.15388; 42Shawn/LLaVA-PruMerge",
    summary="keep the patches the class token attends to most, merge the others into them",
    formula="m + 1 tokens per crop; 2(n+1)c + 2mnc + 2nd FLOPs",
    complexity="O(m n c) per crop",
    schedule=_prumerge,
    needs=frozenset({"clip_qk"}),
    needs_text="queries and keys of the vision tower's last layer, its class token",
    keep_meaning="patches chosen by attention; one merged token comes on top",
    default_text="5.5 % of the patches (32 of 576), the paper's mean; 12.5 % on video",
    rounding="down",
    variants=("program", "paper"),
    options=(NEIGHBOURS,),
    published=(
        "adaptive: about 32 of 576 tokens (5.5 %) over six tasks",
        "40 on TextVQA and MME, 35 on POPE, 16 on ScienceQA",
        "256 of 2048 tokens on Video-LLaVA",
    ),
    needs_class_token=True,
    counts=PUBLISHED_COUNTS,
    count_known=False,
    recomputes="the class token's row of scores in the tower's last layer",
    program_flops=_program_flops,
)
PRUMERGE_PLUS = replace(
    PRUMERGE,
    name="prumerge+",
    summary="PruMerge with an evenly spaced grid of patches added",
    formula="p = m + grid kept, p + 1 tokens per crop; 2(n+1)c + 2pnc + 2nd FLOPs",
    complexity="O(p n c) per crop, p about 4 m",
    schedule=_prumerge_plus,
    keep_meaning="patches chosen by attention; the grid and one merged token come on top",
    default_text="25 % of the patches in all (144 of 576), the paper's mean",
    published=("adaptive: about 144 of 576 tokens (25 %)", "25 % of 2048 on Video-LLaVA"),
)
INFOS = (PRUMERGE, PRUMERGE_PLUS)
