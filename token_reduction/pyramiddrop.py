"""PyramidDrop: after some language-model layers, half of the image tokens that are left.

Source: "PyramidDrop: Accelerating Your Large Vision-Language Models via Pyramid Visual Redundancy
Reduction" (Xing et al., CVPR 2025) and its program Cooperx521/PyramidDrop.
Place: after language-model layers 8, 16 and 24 (of 32), at prefill. The score is the attention of
the LAST instruction token as the NEXT layer would compute it (its layer norm, its query and key
projections), so any attention kernel serves. Positions are renumbered.

Complexity, n image tokens, d width: one more key projection over the sequence (s*d*d_kv), one query,
n*d for the scores and a sort, per stage. Program and paper agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hardware_specs.errors import InvalidInputError
from token_reduction.fastv import select_image_tokens
from token_reduction.keep import check_keep, resolve_keep

if TYPE_CHECKING:
    from torch import Tensor

    from token_reduction.reduced import Selection


def pyramiddrop(
    query: Tensor, keys: Tensor, keep: float = 0.5, *, start: int | Tensor, image_tokens: int
) -> Selection:
    """Keep the image tokens the last instruction token looks at.

    Formula: score = mean over heads of softmax(q k^T / sqrt(e)) at the image tokens;
    int(keep * n) of them stay.

    Args:
        query: [..., h, e] of the last instruction token, in the next layer, position applied.
        keys: [..., h, s, e] likewise (grouped keys repeated to h heads).
        keep: image tokens kept at this stage: a ratio of those left, rounded down, or a count.
        start: sequence position of the first image token; a tensor [...] for one per sequence.
        image_tokens: image tokens the sequence still has.

    Returns:
        Selection over the whole sequence, ascending, all text kept.

    Raises:
        InvalidInputError: shapes that do not fit, NaN or infinity, a keep out of range.

    >>> keys = torch.tensor([[[0.0], [1.0], [3.0], [2.0], [0.0]]])
    >>> pyramiddrop(torch.ones(1, 1), keys, start=1, image_tokens=3).kept_indices.tolist()
    [0, 2, 4]
    """
    if query.shape != (*keys.shape[:-2], keys.shape[-1]):
        raise InvalidInputError(
            f"pyramiddrop takes a query [..., h, e] and keys [..., h, s, e], given "
            f"{tuple(query.shape)} and {tuple(keys.shape)}"
        )
    logits = (keys @ query.unsqueeze(-1)).squeeze(-1) * keys.shape[-1] ** -0.5
    wide = torch.promote_types(logits.dtype, torch.float32)
    row = logits.softmax(dim=-1, dtype=wide).mean(dim=-2)
    count = resolve_keep(keep, image_tokens, rounding="down")
    return select_image_tokens(
        row, count, start=start, image_tokens=image_tokens, method="pyramiddrop"
    )


def tokens_per_stage(keep: float, image_tokens: int, stages: int = 3) -> list[int]:
    """Image tokens before the first stage and after each.

    >>> tokens_per_stage(0.5, 576)
    [576, 288, 144, 72]
    """
    ratio = check_keep(keep)
    if not isinstance(ratio, float):
        raise InvalidInputError(f"pyramiddrop's stages keep a ratio of what is left, not {keep}")
    counts = [image_tokens]
    for _ in range(stages):
        counts.append(resolve_keep(ratio, counts[-1], rounding="down"))
    return counts
