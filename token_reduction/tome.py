"""ToMe: merge r pairs of similar tokens in every vision layer.

Source: "Token Merging: Your ViT But Faster" (Bolya et al., ICLR 2023) and its program
facebookresearch/ToMe.
Place: in every vision block, between attention and MLP, on the block's residual stream. The metric
is the mean over heads of the keys of that block's attention.

Complexity, t tokens, c width of the metric: t^2*c/4 for the similarities and r*d for the merge, per
layer. No length depends on the data.

Tokens at even places (the class token is the first of them) are matched to tokens at odd places;
the output is [even tokens that stay, all odd ones], not spatial order. Sizes count the patches a
token stands for; they weight later merges and, as log(size), the attention ("proportional
attention"). Program and paper agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hardware_specs.errors import InvalidInputError
from token_reduction.checks import require_finite
from token_reduction.keep import resolve_keep
from token_reduction.reduced import Reduced
from token_reduction.selection import take_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Matching:
    """Which even token is merged into which odd token.

    Attributes:
        unmerged: [..., ceil(t/2) - r] even tokens that stay, counted among the even ones.
        src: [..., r] even tokens that go, counted among the even ones.
        dst: [..., r] where they go, counted among the odd ones.
    """

    unmerged: Tensor
    src: Tensor
    dst: Tensor


def tome(
    tokens: Tensor,
    metric: Tensor,
    r: int,
    *,
    size: Tensor | None = None,
    class_token: bool = True,
    trace: bool = False,
) -> Reduced:
    """Merge the r most similar pairs of one layer.

    Formula: bipartite matching on the cosine of `metric`; y = sum(size x) / sum(size) over what is
    merged into each token.

    Args:
        tokens: [..., t, d] residual stream after the attention.
        metric: [..., t, c] mean over heads of the keys.
        r: pairs to merge; at most (t - 1) // 2 with a class token, t // 2 without, are.
        size: [..., t, 1] from the layer before; None for ones.
        class_token: token 0 is never merged away.
        trace: also return sources.

    Returns:
        Reduced with tokens [..., t - r, d], sizes [..., t - r, 1] and, traced, sources [..., t].

    Raises:
        InvalidInputError: a negative r, lengths that differ, NaN or infinity.

    >>> x = torch.tensor([[9.0], [1.0], [2.0], [4.0]])  # places 0 (class) and 2 against 1 and 3
    >>> metric = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 2.0]])
    >>> out = tome(x, metric, 1)
    >>> out.tokens.flatten().tolist(), out.sizes.flatten().tolist()
    ([9.0, 1.0, 3.0], [1.0, 1.0, 2.0])
    """
    if tokens.shape[:-1] != metric.shape[:-1]:
        raise InvalidInputError(
            f"tome takes tokens [..., t, d] and a metric [..., t, c], given "
            f"{tuple(tokens.shape)} and {tuple(metric.shape)}"
        )
    matching = bipartite_matching(metric, r, class_token=class_token)
    merged, sizes = merge_weighted(matching, tokens, size)
    return Reduced(
        tokens=merged,
        sizes=sizes,
        sources=merge_sources(matching, tokens.shape[-2]) if trace else None,
    )


def bipartite_matching(metric: Tensor, r: int, *, class_token: bool = True) -> Matching:
    """Match even tokens to their most similar odd token and take the r best edges.

    Args:
        metric: [..., t, c].
        r: edges to take; cut to half of what is not protected.
        class_token: token 0 keeps its place and its even neighbours their order.

    Raises:
        InvalidInputError: a negative r, NaN or infinity.
    """
    if r < 0:
        raise InvalidInputError(f"r={r} must not be negative")
    length = metric.shape[-2]
    r = min(r, (length - class_token) // 2)
    if r == 0:
        none = torch.empty(*metric.shape[:-2], 0, dtype=torch.long, device=metric.device)
        every = torch.arange((length + 1) // 2, device=metric.device)
        return Matching(unmerged=every.expand(*metric.shape[:-2], -1), src=none, dst=none)
    with torch.no_grad():
        norms = metric.norm(dim=-1, keepdim=True)
        require_finite("tome", metric=norms)
        unit = metric / norms
        scores = unit[..., ::2, :] @ unit[..., 1::2, :].transpose(-1, -2)
        if class_token:
            scores[..., 0, :] = float("-inf")
        best, target = scores.max(dim=-1)
        order = best.argsort(dim=-1, descending=True)
        src = order[..., :r]
        unmerged = order[..., r:]
        if class_token:
            unmerged = unmerged.sort(dim=-1).values
        return Matching(unmerged=unmerged, src=src, dst=target.gather(-1, src))


def merge_sum(matching: Matching, values: Tensor) -> Tensor:
    """Add each source to its target: [..., t, d] gives [..., t - r, d].

    Where nothing is merged the tokens keep their order, as in the program.
    """
    if matching.src.shape[-1] == 0:
        return values
    odd = values[..., 1::2, :]
    sources = take_tokens(values, 2 * matching.src)
    target = matching.dst.unsqueeze(-1).expand(sources.shape)
    stay = take_tokens(values, 2 * matching.unmerged)
    return torch.cat((stay, odd.scatter_add(-2, target, sources)), dim=-2)


def merge_weighted(
    matching: Matching, tokens: Tensor, size: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Average weighted by size: sum(x * size) / sum(size), and the new sizes."""
    if size is None:
        size = torch.ones_like(tokens[..., :1])
    merged_size = merge_sum(matching, size)
    return merge_sum(matching, tokens * size) / merged_size, merged_size


def merge_sources(matching: Matching, length: int) -> Tensor:
    """Place in the output of each of the `length` input tokens, [..., length]."""
    if matching.src.shape[-1] == 0:
        every = torch.arange(length, device=matching.src.device)
        return every.expand(*matching.src.shape[:-1], length)
    even = torch.zeros(
        *matching.src.shape[:-1], (length + 1) // 2, dtype=torch.long, device=matching.src.device
    )
    stay = matching.unmerged.shape[-1]
    places = torch.arange(stay, device=even.device).expand(matching.unmerged.shape)
    even = even.scatter(-1, matching.unmerged, places)
    even = even.scatter(-1, matching.src, matching.dst + stay)
    odd = torch.arange(length // 2, device=even.device) + stay
    out = even.new_empty(*even.shape[:-1], length)
    out[..., ::2] = even
    out[..., 1::2] = odd
    return out


def proportional_bias(size: Tensor) -> Tensor:
    """log(size) as a bias on attention logits: [..., t, 1] gives [..., 1, 1, t].

    >>> proportional_bias(torch.ones(2, 3, 1)).shape
    torch.Size([2, 1, 1, 3])
    """
    return size.log().transpose(-1, -2).unsqueeze(-3)


def parse_r(num_layers: int, r: int | Sequence[int], inflect: float = 0.0) -> list[int]:
    """Pairs merged in each layer.

    Formula: constant, or linear from r (1 - inflect) to 2r minus that; a list is padded with zeros.

    Args:
        num_layers: vision layers.
        r: a number for all layers or a list.
        inflect: slope: -1 merges early, 1 late, 0 evenly.

    Raises:
        InvalidInputError: a negative number, more numbers than layers, or a slope with a list.

    >>> parse_r(3, 8), parse_r(3, 8, -1.0), parse_r(3, [4])
    ([8, 8, 8], [16, 8, 0], [4, 0, 0])
    """
    if not isinstance(r, int):
        values = list(r)
        if inflect or len(values) > num_layers or any(value < 0 for value in values):
            raise InvalidInputError(
                f"a list of r needs at most {num_layers} numbers >= 0 and no slope; "
                f"given {values} with inflect={inflect}"
            )
        return values + [0] * (num_layers - len(values))
    if r < 0 or not -1.0 <= inflect <= 1.0:
        raise InvalidInputError(f"r={r} must be >= 0 and inflect={inflect} in [-1, 1]")
    first = int(r * (1.0 - inflect))
    step = (2 * r - 2 * first) / max(num_layers - 1, 1)
    return [int(first + step * layer) for layer in range(num_layers)]


def merges_for_keep(keep: float, *, patches: int, num_layers: int) -> list[int]:
    """Merges per layer that leave a number of patch tokens, spread evenly, earlier layers first.

    Args:
        keep: patch tokens left after the last layer: a count, or a ratio of `patches`.
        patches: patch tokens at the start.
        num_layers: layers that merge.

    Raises:
        InvalidInputError: fewer tokens than halving in every layer can reach.

    >>> merges_for_keep(10, patches=16, num_layers=4)
    [2, 2, 1, 1]
    """
    target = resolve_keep(keep, patches)
    merges = []
    now = patches
    for layer in range(num_layers):
        later = num_layers - layer - 1
        even = -(-(now - target) // (later + 1))
        # The later layers can only halve, so what they could not merge goes now.
        share = min(max(even, now - target * 2**later), now // 2)
        merges.append(share)
        now -= share
    if now > target:
        raise InvalidInputError(
            f"keep={keep} leaves {target} of {patches} tokens, but {num_layers} layers that merge "
            f"at most half of them reach {now}; give a larger keep"
        )
    return merges
