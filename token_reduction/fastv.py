"""FastV: after a few layers of the language model, keep the image tokens it still looks at.

Source: "An Image is Worth 1/2 Tokens After Layer 2" (Chen et al., ECCV 2024) and its program
pkunlp-icler/FastV.
Place: at the entry of language-model layer K (counted from 0), at prefill only, from the attention
of layer K-1. Hidden states, position ids (the ORIGINAL ones) and mask are indexed by what is kept;
layers 0..K-1 cache every token, layers K.. only the kept ones.
Needs: the attention of the last query row at layer K-1; the paper's variant needs all rows.

Complexity, h heads, n image tokens: h*n additions and a sort; the row itself is a 1 x s x e product
per head when the layer runs a fused attention.

Program (default) and paper: the program ranks by the LAST token's attention, averaged over heads;
the paper's text says the average attention received from all other tokens (variant="paper"). K = 0
has no attention to look at: the program keeps a random subset (`fastv_random`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hardware_specs.errors import InvalidInputError
from token_reduction.checks import require_finite
from token_reduction.keep import resolve_keep
from token_reduction.reduced import Selection
from token_reduction.selection import (
    check_image_span,
    check_variant,
    complement,
    image_positions,
    top_indices,
)

if TYPE_CHECKING:
    from torch import Tensor


def fastv(
    attention: Tensor,
    keep: float = 0.5,
    *,
    start: int | Tensor,
    image_tokens: int,
    variant: str = "program",
) -> Selection:
    """Rank image tokens by the attention they receive and keep the first.

    Formula: score_j = mean over heads of A[last, j]; "paper": mean over heads and over all other
    rows i of A[i, j].

    Args:
        attention: [..., h, s] last query row of layer K-1; "paper": all rows, [..., h, s, s].
        keep: image tokens kept: a count, or a ratio of them, rounded to nearest. Default 0.5.
        start: sequence position of the first image token; a tensor [...] for one per sequence.
        image_tokens: number of image tokens.
        variant: "program" or "paper".

    Returns:
        Selection over the whole sequence, ascending, all text kept.

    Raises:
        InvalidInputError: image slice outside the sequence, NaN, a keep out of range.

    >>> row = torch.tensor([[0.3, 0.1, 0.2, 0.4]])  # one head; text, two image tokens, text
    >>> fastv(row, 1, start=1, image_tokens=2).kept_indices.tolist()
    [0, 2, 3]
    """
    check_variant("fastv", variant)
    if variant == "paper" and (attention.ndim < 3 or attention.shape[-2] != attention.shape[-1]):
        raise InvalidInputError(
            f"fastv's paper variant averages over all rows and takes attention [..., h, s, s]; "
            f"given {tuple(attention.shape)}"
        )
    if variant == "paper":
        length = attention.shape[-1]
        received = attention.sum(dim=-2) - attention.diagonal(dim1=-2, dim2=-1)
        row = received / max(length - 1, 1)
    else:
        row = attention
    return select_image_tokens(
        row.mean(dim=-2), keep, start=start, image_tokens=image_tokens, method="fastv"
    )


def fastv_random(
    keep: float,
    *,
    start: int,
    image_tokens: int,
    length: int,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Selection:
    """FastV at K = 0: a uniformly random subset of the image tokens.

    Args:
        keep: a count or a ratio, as for `fastv`.
        start: sequence position of the first image token.
        image_tokens: number of image tokens.
        length: tokens in the sequence.
        generator: where the randomness comes from, on `device`.
        device: device of the indices.

    >>> fastv_random(1.0, start=1, image_tokens=2, length=4).kept_indices.tolist()
    [0, 1, 2, 3]
    """
    check_image_span(start, image_tokens, length)
    scores = torch.rand(length, generator=generator, device=device)
    return select_image_tokens(scores, keep, start=start, image_tokens=image_tokens, method="fastv")


def select_image_tokens(
    scores: Tensor, keep: float, *, start: int | Tensor, image_tokens: int, method: str
) -> Selection:
    """Keep the best-scored image tokens of a sequence and all its text.

    Args:
        scores: [..., s] one score per sequence token; text scores are not looked at.
        keep: a count, or a ratio of the image tokens, rounded to nearest.
        start: as for `fastv`.
        image_tokens: number of image tokens.
        method: name for messages.

    Raises:
        InvalidInputError: image slice outside the sequence, NaN, a keep out of range.
    """
    length = scores.shape[-1]
    check_image_span(start, image_tokens, length)
    require_finite(method, attention=scores)
    count = resolve_keep(keep, image_tokens, rounding="nearest")
    positions = image_positions(start, image_tokens, scores.device)
    positions = positions.expand(*scores.shape[:-1], image_tokens)
    image_scores = scores.gather(-1, positions)
    kept = top_indices(image_scores, count).sort(dim=-1).values
    dropped = positions.gather(-1, complement(kept, image_tokens))
    return Selection(
        kept_indices=complement(dropped, length), image_indices=kept, scores=image_scores
    )
