"""FitPrune: delete a few image tokens after the attention of every language-model layer.

Source: "Fit and Prune: Fast and Training-free Visual Token Pruning for Multi-modal Large Language
Models" (Ye et al., AAAI 2025) and its program ywh187/FitPrune.
Place: inside every language-model layer, between attention and FFN, at prefill. Attention output and
residual lose the deleted rows, o_proj and the FFN run on the rest; the cache of layer l holds the
tokens from before its deletion. Positions stay the original ones.
Needs: the full attention map of every layer, so no fused attention.

Complexity, h heads, s tokens: h*s^2 for the maximum over heads and 2*s^2 for the two sums, per layer.

How many tokens each layer deletes is a scheme, fitted once per model by `search_scheme` on a few
samples. The program's schemes for LLaVA-1.5-7B (32 layers, 576 image tokens) are shipped in
data/fitprune_llava15_7b.json; for another depth or token count `adapt_scheme` stretches one, which
is this project's own choice (the program has these numbers written in).

Program and paper: at inference the program does not normalise the text-to-image sums, which moves
no rank within one call.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import torch

from hardware_specs.errors import InvalidInputError
from token_reduction.checks import require_finite
from token_reduction.reduced import Selection
from token_reduction.selection import (
    bottom_indices,
    check_image_span,
    complement,
    image_positions,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

SCHEME_TOKENS = 576


def fitprune(
    attention: Tensor, delete: int, *, start: int | Tensor, image_tokens: int
) -> Selection:
    """Delete the image tokens that neither the image nor the text looks at.

    Formula: A = max over heads; self_j = sum over image rows i of A[i, j] / n;
    cross_j = sum over rows i after the image of A[i, j]; delete the lowest self_j * cross_j.

    Args:
        attention: [..., h, s, s] softmaxed attention of the layer; half precision is widened.
        delete: how many image tokens go, 0 <= delete <= image_tokens.
        start: sequence position of the first image token; a tensor [...] for one per sequence.
        image_tokens: image tokens that this layer still has.

    Returns:
        Selection over the whole sequence.

    Raises:
        InvalidInputError: a map that is not square, an image slice outside it, NaN, or more
            deletions than image tokens.

    >>> row = torch.tensor([0.1, 0.5, 0.4])
    >>> fitprune(row.expand(1, 3, 3), 1, start=1, image_tokens=2).kept_indices.tolist()
    ... # no row after the image: all scores are 0, so the first goes
    [0, 2]
    """
    if not 0 <= delete <= image_tokens:
        raise InvalidInputError(f"fitprune cannot delete {delete} of {image_tokens} image tokens")
    received_self, received_cross = received_attention(
        attention, start=start, image_tokens=image_tokens
    )
    scores = received_self * received_cross
    length = attention.shape[-1]
    worst = bottom_indices(scores, delete)
    positions = image_positions(start, image_tokens, scores.device)
    dropped = positions.expand(scores.shape).gather(-1, worst)
    return Selection(
        kept_indices=complement(dropped, length),
        image_indices=complement(worst, image_tokens),
        scores=scores,
    )


def received_attention(
    attention: Tensor, *, start: int | Tensor, image_tokens: int
) -> tuple[Tensor, Tensor]:
    """Attention each image token receives from the image and from the text after it.

    Formula: A = max over heads; self_j = sum over image rows of A[i, j] / n, cross_j = sum over
    later rows of A[i, j].

    Args:
        attention: [..., h, s, s].
        start: sequence position of the first image token.
        image_tokens: number of image tokens n.

    Returns:
        (self, cross), each [..., n], in float32 or wider. `search_scheme` takes them per layer.

    Raises:
        InvalidInputError: as for `fitprune`.
    """
    if attention.ndim < 3 or attention.shape[-1] != attention.shape[-2]:
        raise InvalidInputError(
            f"fitprune takes attention [..., h, s, s], given {tuple(attention.shape)}"
        )
    length = attention.shape[-1]
    check_image_span(start, image_tokens, length)
    wide = torch.promote_types(attention.dtype, torch.float32)
    strongest = attention.amax(dim=-3).to(wide)
    positions = image_positions(start, image_tokens, attention.device)
    positions = positions.expand(*strongest.shape[:-2], image_tokens)
    rows = torch.arange(length, device=attention.device)
    offset = rows - positions[..., :1]
    in_image = ((offset >= 0) & (offset < image_tokens)).to(wide) / image_tokens
    after = (offset >= image_tokens).to(wide)
    # Two weighted sums over rows in one product; a slice would need one start for all sequences.
    sums = torch.stack((in_image, after), dim=-2) @ strongest
    require_finite("fitprune", attention=sums)
    picked = sums.gather(-1, positions.unsqueeze(-2).expand(*sums.shape[:-1], image_tokens))
    return picked[..., 0, :], picked[..., 1, :]


@cache
def shipped_schemes() -> dict[int, tuple[int, ...]]:
    """The program's schemes: reduction of visual FLOPs in percent to deletions per layer.

    >>> sum(shipped_schemes()[60]), len(shipped_schemes()[60])
    (449, 32)
    """
    text = files("token_reduction").joinpath("data/fitprune_llava15_7b.json").read_text("utf-8")
    return {int(key): tuple(value) for key, value in json.loads(text)["schemes"].items()}


def scheme_for(
    keep: float, *, num_layers: int = 32, image_tokens: int = SCHEME_TOKENS
) -> tuple[int, ...]:
    """The shipped scheme that leaves a share `keep` of the visual FLOPs.

    Args:
        keep: share left, in (0, 1]; one of those shipped.
        num_layers: layers of the language model.
        image_tokens: image tokens of the sequence.

    Returns:
        Deletions per layer, stretched by `adapt_scheme` where depth or count differ.

    Raises:
        InvalidInputError: no scheme for that share; lists those there are.

    >>> scheme_for(0.4)[:4]
    (14, 33, 89, 36)
    """
    schemes = shipped_schemes()
    reduction = round((1.0 - keep) * 100)
    if reduction not in schemes or abs((1.0 - keep) * 100 - reduction) > 1e-6:
        there_is = ", ".join(f"{1 - key / 100:g}" for key in sorted(schemes))
        raise InvalidInputError(
            f"fitprune has no scheme for keep={keep}; there is: {there_is}; "
            "fit one with search_scheme"
        )
    return adapt_scheme(schemes[reduction], num_layers=num_layers, image_tokens=image_tokens)


def adapt_scheme(
    scheme: Sequence[int],
    *,
    num_layers: int,
    image_tokens: int,
    scheme_tokens: int = SCHEME_TOKENS,
) -> tuple[int, ...]:
    """Stretch a scheme to another depth and token count.

    Formula: the share deleted up to relative depth (l+1)/L is interpolated linearly; the deletions
    are the differences of its rounded multiples of `image_tokens`.

    >>> adapt_scheme((2, 4), num_layers=4, image_tokens=12, scheme_tokens=12)
    (1, 1, 2, 2)
    """
    if (num_layers, image_tokens) == (len(scheme), scheme_tokens):
        return tuple(scheme)
    total, gone = 0, [0.0]
    for deletions in scheme:
        total += deletions
        gone.append(total / scheme_tokens)
    if total > scheme_tokens:
        raise InvalidInputError(f"the scheme deletes {total} of {scheme_tokens} image tokens")
    adapted, before = [], 0
    for layer in range(1, num_layers + 1):
        depth = layer * len(scheme) / num_layers
        low = min(int(depth), len(scheme) - 1)
        share = gone[low] + (depth - low) * (gone[low + 1] - gone[low])
        after = round(share * image_tokens)
        adapted.append(after - before)
        before = after
    return tuple(adapted)


def visual_macs(tokens: int, hidden_size: int, intermediate_size: int) -> int:
    """Multiply-accumulates of one layer over `tokens` image tokens: 4nd^2 + 2n^2d + 3ndm.

    >>> visual_macs(2, 3, 5)  # 4*2*9 + 2*4*3 + 3*2*3*5
    186
    """
    n, d, m = tokens, hidden_size, intermediate_size
    return 4 * n * d * d + 2 * n * n * d + 3 * n * d * m


def search_scheme(
    received_self: Tensor,
    received_cross: Tensor,
    *,
    keep: float,
    hidden_size: int,
    intermediate_size: int,
    tolerance: float = 0.01,
) -> tuple[int, ...]:
    """Fit the deletions per layer to one sample by a binary search on the mass given up.

    Formula: at a threshold alpha, layer l deletes the tokens that lie both among those with the
    smallest self attention and among those with the smallest cross attention whose cumulative
    share of the mass still there is at most alpha. The search halves [0, 1] until it is shorter
    than `tolerance`, for the smallest alpha whose visual FLOPs (`visual_macs` on the tokens left
    after each layer) are at most `keep` times the original.

    Args:
        received_self: [layers, n] from `received_attention` on the untouched model.
        received_cross: [layers, n] likewise.
        keep: share of visual FLOPs to leave, in (0, 1].
        hidden_size: width of the language model.
        intermediate_size: width of its FFN.
        tolerance: where the search stops.

    Returns:
        Deletions per layer. Average those of several samples with `mean_scheme`.

    Raises:
        InvalidInputError: shapes that differ, NaN, a keep outside (0, 1].

    >>> flat = torch.ones(2, 4)
    >>> search_scheme(flat, flat, keep=0.5, hidden_size=8, intermediate_size=8)
    (2, 1)
    """
    if received_self.ndim != 2 or received_self.shape != received_cross.shape:
        raise InvalidInputError(
            "the scheme search takes two tables [layers, image tokens], given "
            f"{tuple(received_self.shape)} and {tuple(received_cross.shape)}"
        )
    if not 0.0 < keep <= 1.0:
        raise InvalidInputError(f"keep={keep} is a share of visual FLOPs and must be in (0, 1]")
    require_finite("fitprune", received_self=received_self, received_cross=received_cross)
    tables = torch.stack((received_self, received_cross)).detach().double().cpu()
    layers, n = received_self.shape
    budget = keep * layers * visual_macs(n, hidden_size, intermediate_size)

    def cost(scheme: tuple[int, ...]) -> int:
        left, total = n, 0
        for deletions in scheme:
            left -= deletions
            total += visual_macs(left, hidden_size, intermediate_size)
        return total

    low, high = 0.0, 1.0
    found = _scheme_at(tables, 0.0)
    if cost(found) <= budget:
        return found
    found = _scheme_at(tables, 1.0)
    while high - low > tolerance:
        middle = (low + high) / 2
        scheme = _scheme_at(tables, middle)
        if cost(scheme) <= budget:
            high, found = middle, scheme
        else:
            low = middle
    return found


def mean_scheme(schemes: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Average deletions per layer over samples, each rounded to nearest.

    >>> mean_scheme([(0, 4), (1, 5), (2, 6)])
    (1, 5)
    """
    if not schemes or len({len(scheme) for scheme in schemes}) != 1:
        raise InvalidInputError("mean_scheme takes one or more schemes of the same length")
    return tuple(round(sum(layer) / len(schemes)) for layer in zip(*schemes, strict=True))


def _scheme_at(tables: Tensor, alpha: float) -> tuple[int, ...]:
    """Deletions per layer when each layer gives up a share `alpha` of either mass."""
    present = torch.ones(tables.shape[-1], dtype=torch.bool)
    deletions = []
    for layer in range(tables.shape[1]):
        prunable = present.clone()
        for kind in range(2):
            mass = torch.where(present, tables[kind, layer], 0.0)
            ranked = torch.where(present, mass, float("inf")).sort(stable=True)
            share = mass[ranked.indices].cumsum(0) / mass.sum().clamp_min(1e-300)
            # A hair of slack: the last cumulative share is 1 up to rounding.
            within = torch.zeros_like(present)
            within[ranked.indices] = share <= alpha + 1e-12
            prunable &= within
        deletions.append(int(prunable.sum()))
        present &= ~prunable
    return tuple(deletions)
