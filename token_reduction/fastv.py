"""FastV: after a few layers of the language model, keep the image tokens it still attends to.

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

from costmodel.methods.fastv import RATIO, SEED
from costmodel.methods.keep import resolve_keep
from token_reduction.apply.llm_attention import AttentionProbe
from token_reduction.apply.llm_policy import OneCut, contiguous_start, rows_of
from token_reduction.apply.places import Host, reduce_between_layers
from token_reduction.tokens.checks import misfit, require_finite
from token_reduction.tokens.reduced import Selection
from token_reduction.tokens.selection import (
    check_image_span,
    check_variant,
    complement,
    image_positions,
    top_indices,
)

if TYPE_CHECKING:
    from torch import Tensor

    from costmodel.methods import Method
    from token_reduction.apply.anatomy import Parts
    from token_reduction.apply.inside_llm import Prefill
    from token_reduction.apply.llm_tokens import Group


def fastv(
    attention: Tensor,
    keep: float = RATIO,
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
    row = attention
    if variant == "paper":
        if attention.ndim < 3 or attention.shape[-2] != attention.shape[-1]:
            raise misfit("fastv's paper variant", "all rows of attention [..., h, s, s]", attention)
        received = attention.sum(dim=-2) - attention.diagonal(dim1=-2, dim2=-1)
        row = received / max(attention.shape[-1] - 1, 1)
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
    """FastV at K = 0: a uniformly random subset of the image tokens, as indices on `device`.

    `generator` must be on that device too; the other arguments are those of `fastv`.

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

    `scores` [..., s] has one score per sequence token; text scores are not read. The other arguments are
    those of `fastv`, with the method's name for messages.

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


def plug(host: Host) -> None:
    """Cut at one layer of the language model, by the attention of the layer before it if there is one."""
    reduce_between_layers(host, Attended if host.method.layer else Drawn)


class Drawn(OneCut):
    """FastV at the first layer, before which there is no attention: keep a random subset."""

    def pick(self, group: Group, layer: int, now: Prefill, hidden: Tensor) -> Tensor:  # noqa: ARG002
        """Draw once for all rows of a group."""
        (rows, count), device = group.places.shape, hidden.device
        kept = fastv_random(
            self.method.settled_keep,
            start=0,
            image_tokens=count,
            length=count,
            generator=torch.Generator(device).manual_seed(SEED.of(self.method)),
            device=device,
        )
        return kept.image_indices.expand(rows, -1)


class Attended(OneCut):
    """FastV: keep the tokens that the last token (or all tokens) attended to one layer earlier."""

    def __init__(self, method: Method, parts: Parts) -> None:
        super().__init__(method, parts)
        self._probe = AttentionProbe(parts, self.layer - 1)
        self.probes = (self._probe,)

    def begin(self, now: Prefill) -> None:
        """Watch this forward, for one row of each sequence or for all."""
        super().begin(now)
        self._probe.wanted = now.last_places if self.method.variant == "program" else None

    def choose(self, layer: int, now: Prefill, hidden: Tensor) -> list[Tensor]:  # noqa: ARG002
        """Recompute the attention once for all groups."""
        weights = self._probe.rows() if self.method.variant == "program" else self._probe.full()
        self._probe.forget()
        return [self._ranked(group, now, weights) for group in now.tokens.groups]

    def _ranked(self, group: Group, now: Prefill, weights: Tensor) -> Tensor:
        count, keep = group.places.shape[1], self.method.settled_keep
        if not count:
            return group.places
        local = now.tokens.local(group)
        weights = rows_of(weights, group, now.tokens)
        if self.method.variant == "program":
            # Only image columns count; taken out, they are a sequence of image tokens.
            row = weights.take_along_dim(local.unsqueeze(1), dim=-1)
            return fastv(row, keep, start=0, image_tokens=count).image_indices
        start = contiguous_start(group, now, self.method.name)
        if not now.whole.is_full:
            real = torch.from_numpy(now.prompt.real[list(group.rows)]).to(weights.device)
            weights = weights * real[:, None, :, None]
        return fastv(weights, keep, start=start, image_tokens=count, variant="paper").image_indices
