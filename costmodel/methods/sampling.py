"""Sequential and spatial sampling: baselines between vision tower and projector that look at nothing.

Source: Shang et al. 2024 (arXiv 2403.15388) Table 4, which compares them with PruMerge at 40, 35 and 16
tokens. No FLOPs, one copy of the kept tokens. A spatial count must have a grid: rows x columns.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.methods.counts import kept_count
from costmodel.methods.pieces import gather
from costmodel.methods.registry import MethodCost, MethodPlan
from costmodel.methods.requirements import crops_of, vision_parts
from costmodel.schedule import LayerSpan
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from costmodel.methods.registry import MethodRequest

#: PruMerge's Table 4, TextVQA and MME.
COUNT = 40


def _plan(request: MethodRequest, name: str) -> MethodPlan:
    _, projector = vision_parts(name, request.model)
    images, n, runs = crops_of(request)
    keep = COUNT if request.keep is None else request.keep
    kept = kept_count(name, keep, n)
    if name == "spatial":
        check_grid(n, kept)
    tokens = request.crops * kept * runs
    copy = gather(
        "kept_tokens", images * kept, projector.in_features, request.precision.vision, runs
    )
    span = LayerSpan(request.model.text.num_layers, tokens)
    return MethodPlan((span,), tokens, None, (copy,), {name: "keep counts tokens of each crop"})


def check_grid(n: Any, count: Any) -> None:
    """Raise unless every count is rows x columns within a square of `n` patches.

    >>> check_grid(576, 40)  # 5 x 8
    >>> check_grid(576, 37)
    Traceback (most recent call last):
    hardware_specs.errors.InvalidInputError: spatial: 37 tokens form no grid within 24 x 24 patches; \
the nearest counts that do are 36 and 38
    """
    for patches, tokens in {
        (int(a), int(b)) for a, b in np.broadcast(np.atleast_1d(n), np.atleast_1d(count))
    }:
        side = math.isqrt(patches)
        if tokens and not _has_grid(tokens, side):
            near = sorted(range(1, side * side + 1), key=lambda other: abs(other - tokens))
            found = [other for other in near if _has_grid(other, side)][:2]
            raise InvalidInputError(
                f"spatial: {tokens} tokens form no grid within {side} x {side} patches; the nearest "
                f"counts that do are {' and '.join(map(str, sorted(found)))}"
            )


def _has_grid(count: int, side: int) -> bool:
    return any(
        count % rows == 0 and count // rows <= side
        for rows in range(1, min(math.isqrt(count), side) + 1)
    )


def _sequential(request: MethodRequest) -> MethodPlan:
    return _plan(request, "sequential")


def _spatial(request: MethodRequest) -> MethodPlan:
    return _plan(request, "spatial")


_SOURCE = "Shang et al. 2024, LLaVA-PruMerge, arXiv 2403.15388 Table 4 (no program)"

METHODS = {
    "sequential": MethodCost(
        name="sequential",
        schedule=_sequential,
        place="after-vision",
        summary="the first tokens in raster order: a baseline",
        formula="keep tokens per crop; no FLOPs",
        complexity="O(m d)",
        source=_SOURCE,
        default_keep="40 tokens per crop",
        published=("40, 35 and 16 tokens",),
    ),
    "spatial": MethodCost(
        name="spatial",
        schedule=_spatial,
        place="after-vision",
        summary="an evenly spaced grid of tokens: a baseline",
        formula="keep tokens per crop; no FLOPs",
        complexity="O(m d)",
        source=_SOURCE,
        default_keep="40 tokens per crop (5 x 8)",
        published=("6x6, 5x8, 8x5, 5x7, 7x5, 4x4",),
    ),
}
