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
from typing import TYPE_CHECKING, Any

import torch

from costmodel.methods.tome import INFLECT, PROPORTIONAL, R
from hardware_specs.errors import InvalidInputError
from token_reduction.apply.inside_tower import Stream, attend
from token_reduction.apply.llm_attention import split_heads
from token_reduction.apply.places import Host, reduce_in_tower
from token_reduction.apply.tower_layer import MergingStep
from token_reduction.tokens.checks import misfit, require_finite
from token_reduction.tokens.observation import observed
from token_reduction.tokens.reduced import Reduced
from token_reduction.tokens.selection import output_places, take_tokens, unit_rows

if TYPE_CHECKING:
    from torch import Tensor

    from token_reduction.apply.anatomy import Parts
    from token_reduction.apply.patching import Patches


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
        raise misfit("tome", "tokens [..., t, d] and a metric [..., t, c]", tokens, metric)
    matching = bipartite_matching(metric, r, class_token=class_token)
    merged, sizes = merge_weighted(matching, tokens, size)
    return Reduced(
        tokens=merged,
        sizes=sizes,
        sources=merge_sources(matching, tokens.shape[-2]) if trace else None,
    )


def bipartite_matching(metric: Tensor, r: int, *, class_token: bool = True) -> Matching:
    """Match even tokens to their most similar odd token and take the r best edges.

    `metric` is [..., t, c]; r is cut to half of what is not protected. With a class token, token 0 keeps its
    place and the even tokens that stay their order.

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
        unit = unit_rows(metric, norms)
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
    stay = matching.unmerged.shape[-1]
    even = output_places(matching.unmerged, (length + 1) // 2)
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


def plug(host: Host) -> None:
    """Merge in every layer of the vision tower."""
    reduce_in_tower(host, TokenMerging(host))


class TokenMerging(MergingStep):
    """ToMe: the layer's attention runs as the model is set, with log(size) as a bias once sizes differ."""

    needs_class_token = False

    def __init__(self, host: Host) -> None:
        super().__init__(host, R.of(host.method), INFLECT.of(host.method))
        self._keys: Tensor | None = None
        self._has_class = True

    def attach(self, parts: Parts, patches: Patches) -> None:
        """Watch the keys of every layer."""
        super().attach(parts, patches)
        self._has_class = all(tower.has_class for tower in parts.towers)

        def saw_keys(_module: Any, _args: Any, output: Tensor) -> None:
            self._keys = output

        for tower in parts.towers:
            for layer in tower.layers:
                attention: Any = layer.self_attn
                patches.after(attention.k_proj, saw_keys)

    def run(
        self, layer: Any, number: int, hidden: Tensor, stream: Stream, call: dict[str, Any]
    ) -> Tensor:
        """Attend in proportion to size, then merge the most similar pairs."""
        bias = None
        if PROPORTIONAL.of(self.method) and stream.size is not None:
            with observed("reduction"):
                bias = proportional_bias(stream.size).to(hidden.dtype)
        hidden = hidden + attend(layer, hidden, bias, call)
        if not self.merges[number]:
            return hidden
        with observed("reduction"):
            keys, self._keys = self._keys, None
            assert keys is not None  # noqa: S101  (the attention just ran)
            metric = split_heads(keys, layer.self_attn.head_dim).mean(dim=1)
            merged = tome(
                hidden,
                metric,
                self.merges[number],
                size=stream.size,
                class_token=self._has_class,
                trace=self.trace,
            )
            stream.size = merged.sizes
            stream.follow(merged.sources)
        return merged.tokens
