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

from typing import TYPE_CHECKING

import numpy as np

from costmodel.methods.counts import kept_count, share
from costmodel.methods.pieces import gather, passes, product, sort
from costmodel.methods.registry import MethodCost, MethodPlan
from costmodel.methods.requirements import crops_of, vision_parts
from costmodel.ops.linear import linear
from costmodel.schedule import LayerSpan
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from costmodel.methods.registry import MethodRequest
    from costmodel.quantities import Num, OpCost

#: Tokens merged into each kept one.
NEIGHBOURS = 32
#: Mean counts of chosen tokens on LLaVA-1.5, arXiv 2403.15388 Table 4.
PUBLISHED_COUNTS = {"TextVQA": 40, "MME": 40, "POPE": 35, "SQA": 16}
#: Mean shares of the patches, Tables 1 and 3: images, video.
CHOSEN_SHARE = {"prumerge": (0.055, 0.125), "prumerge+": (0.25, 0.25)}


def _published_share(name: str, request: MethodRequest) -> float:
    return CHOSEN_SHARE[name][request.model.takes_clips]


def grid_tokens(n: Num, chosen: Num) -> Num:
    """Return how many grid patches PruMerge+ adds on average to `chosen` of `n` patches.

    The grid is arange(0, n-1, int(int(1/ratio) / 3)); a share chosen/n of it was kept already.

    Raises:
        InvalidInputError: no patch chosen, or more than a third, for which the step is undefined.

    >>> grid_tokens(576, 32), grid_tokens(576, 40)  # 96 and 144, less the share chosen
    (91, 134)
    """
    if isinstance(chosen, np.ndarray) or isinstance(n, np.ndarray):
        wide_n, wide_chosen = np.broadcast_arrays(n, chosen)
        pairs, where = np.unique(
            np.stack([wide_n.ravel(), wide_chosen.ravel()]), axis=1, return_inverse=True
        )
        each = np.array([grid_tokens(int(a), int(b)) for a, b in pairs.T], dtype=float)
        return each[where].reshape(wide_n.shape)
    if n == 0:
        return 0
    if not 0 < chosen <= n / 3:
        raise InvalidInputError(
            f"prumerge+ with {chosen:g} of {n:g} patches chosen by attention has no grid: its step "
            "int(int(1/ratio)/3) needs from 1 patch to a third of them; give another keep"
        )
    grid = len(range(0, int(n) - 1, int(int(n / chosen) / 3)))
    return round(grid * (1 - chosen / n))


def prumerge_ops(request: MethodRequest, kept: Num, *, adaptive: bool) -> tuple[OpCost, ...]:
    """Return the own ops of PruMerge and PruMerge+.

    Args:
        request: the request.
        kept: patches per crop kept in all: those attention chose and PruMerge+'s grid.
        adaptive: whether the count comes from the outliers, which asks for quartiles.
    """
    tower, projector = vision_parts("prumerge", request.model)
    images, n, runs = crops_of(request)
    num, c, d = request.precision.vision, tower.hidden_size, projector.in_features
    ops: list[OpCost] = []
    if request.vision_layers < tower.num_layers:
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
    ops += [
        passes("key_norms", images * n * c, num, reads=1, writes=0, kernels=2, flops=2, count=runs),
        gather("chosen_keys", images * kept, c, num, runs, kernels=3),
        product("similarity", images, kept, n, c, num, runs),
        passes("cosine", images * kept * n, num, reads=3, writes=2, kernels=2, count=runs),
        sort("neighbours", images * kept, n, num, runs),
        # One weighted gather of 32 rows per kept token, and the kept tokens themselves.
        passes("merge", images * kept * d, num, reads=NEIGHBOURS + 2, writes=3, kernels=8,
               flops=2 * NEIGHBOURS + 1, count=runs),
        product("merge_pruned", images, 1, d, n, num, runs),
        passes("concatenate", images * (kept + 1) * d, num, kernels=1, flops=0, count=runs),
    ]  # fmt: skip
    return tuple(ops)


def _plan(request: MethodRequest, name: str, kept: Num, note: str) -> MethodPlan:
    crops = request.crops
    _, n, runs = crops_of(request)
    short = (n > 0) & (n <= NEIGHBOURS) & (kept > 0)
    if np.any(short):
        raise InvalidInputError(
            f"{name} merges {NEIGHBOURS} neighbours into each kept token, so a crop needs at least "
            f"{NEIGHBOURS + 1} patches, not {np.min(np.asarray(n)[np.asarray(short)]):g}"
        )
    tokens = crops * (kept + 1) * runs
    span = LayerSpan(request.model.text.num_layers, tokens)
    ops = prumerge_ops(request, kept, adaptive=request.keep is None)
    return MethodPlan((span,), tokens, None, ops, {name: note})


def _prumerge(request: MethodRequest) -> MethodPlan:
    _, n, _ = crops_of(request)
    if request.keep is None:
        chosen = share(_published_share("prumerge", request), n)
        note = "expected count: the paper's mean share of the patches, and one merged token"
    else:
        chosen = kept_count("prumerge", request.keep, n, "down")
        note = "keep counts the patches chosen in each crop; one merged token on top"
    return _plan(request, "prumerge", chosen, note)


def _prumerge_plus(request: MethodRequest) -> MethodPlan:
    _, n, runs = crops_of(request)
    if request.keep is None:
        kept = share(_published_share("prumerge+", request), n) - runs
        note = "expected count: the paper's mean share of the patches, the merged token included"
    else:
        chosen = kept_count("prumerge+", request.keep, n, "down")
        kept = chosen + grid_tokens(n, chosen)
        note = "keep counts the patches chosen by attention in each crop; grid expected on average"
    return _plan(request, "prumerge+", kept, note)


def _program_flops(request: MethodRequest) -> Num:
    """What the authors' program counts for the attention it recomputes: 2 (n+1)^2 c per crop."""
    tower, _ = vision_parts("prumerge", request.model)
    images, n, runs = crops_of(request)
    return 2 * images * (n + 1) ** 2 * tower.hidden_size * runs


_SOURCE = "Shang et al. 2024, LLaVA-PruMerge, arXiv 2403.15388; 42Shawn/LLaVA-PruMerge"
_NEEDS = "queries and keys of the vision tower's last layer, its class token"

METHODS = {
    "prumerge": MethodCost(
        name="prumerge",
        schedule=_prumerge,
        place="after-vision",
        summary="keep the patches the class token attends to most, merge the others into them",
        formula="m + 1 tokens per crop; 2(n+1)c + 2mnc + 2nd FLOPs",
        complexity="O(m n c) per crop",
        source=_SOURCE,
        default_keep="5.5 % of the patches (32 of 576), the paper's mean; 12.5 % on video",
        needs=_NEEDS,
        published=(
            "adaptive: about 32 of 576 tokens (5.5 %) over six tasks",
            "40 on TextVQA and MME, 35 on POPE, 16 on ScienceQA",
            "256 of 2048 tokens on Video-LLaVA",
        ),
        needs_class_token=True,
        counts=PUBLISHED_COUNTS,
        program_flops=_program_flops,
    ),
    "prumerge+": MethodCost(
        name="prumerge+",
        schedule=_prumerge_plus,
        place="after-vision",
        summary="PruMerge with an evenly spaced grid of patches added",
        formula="p = m + grid kept, p + 1 tokens per crop; 2(n+1)c + 2pnc + 2nd FLOPs",
        complexity="O(p n c) per crop, p about 4 m",
        source=_SOURCE,
        default_keep="25 % of the patches in all (144 of 576), the paper's mean",
        needs=_NEEDS,
        published=("adaptive: about 144 of 576 tokens (25 %)", "25 % of 2048 on Video-LLaVA"),
        needs_class_token=True,
        counts=PUBLISHED_COUNTS,
        program_flops=_program_flops,
    ),
}
