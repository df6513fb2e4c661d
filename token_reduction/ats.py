"""ATS: sample tokens by the class token's attention and the length of their values.

Source: "Adaptive Token Sampling for Efficient Vision Transformers" (Fayyaz et al., ECCV 2022) and
its program adaptivetokensampling/ATS.
Place: inside the attention of some vision layers (DeiT-S: blocks 3 to 11): the attention ROWS of
the sampled tokens are gathered before they meet the values, so the layer's output and residual
have as many rows as were sampled.

Complexity, n patches, m samples: n*d for the norms, a sort, m*n for the nearest entries. How many
tokens survive depends on the data: a batch is padded and carries a mask; cutting the padding off
costs one read-back, which the definition forces.

With fewer samples than tokens the program looks for the nearest entry among the last m of the
sorted scores only: the lowest ones cannot be sampled. The paper has no such cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from costmodel.methods.ats import LAYERS, MINIMUM
from costmodel.methods.keep import check_keep, resolve_keep
from hardware_specs.errors import InvalidInputError
from token_reduction.apply.places import Host, reduce_in_tower
from token_reduction.apply.tower_layer import LayerStep, project, scores
from token_reduction.tokens.checks import misfit, require_finite
from token_reduction.tokens.observation import observed
from token_reduction.tokens.reduced import Reduced
from token_reduction.tokens.selection import check_variant, take_tokens

if TYPE_CHECKING:
    from torch import Tensor

    from token_reduction.apply.inside_tower import Stream


def ats(
    tokens: Tensor,
    cls_attention: Tensor,
    values: Tensor,
    keep: float = 1.0,
    *,
    variant: str = "program",
    trace: bool = False,
) -> Reduced:
    """Sample tokens by inverse transform of the cumulated significance.

    Formula: score_j = (sum over heads of A[class, j]) * |v_j|, normalised over patches; sort
    ascending, cumulate, min-max normalise to c; y_i = c+ + (1 - c+) i / (m - 1) for m = keep - 1
    samples, c+ the smallest positive c; take the entry nearest to each y_i, once.

    Args:
        tokens: [..., n+1, d] residual stream, class token first.
        cls_attention: [..., h, n+1] the class token's row of the attention.
        values: [..., h, n+1, e].
        keep: reference samples with the class token: a count (it may exceed n+1, as in the
            program's later layers) or a ratio of n+1, rounded to nearest.
        variant: "program", or "paper" without the cut.
        trace: also return sources (-1 for what is not sampled).

    Returns:
        Reduced with tokens [..., k, d], k = min(keep, n+1), class token first and then in
        ascending score; rows past the sampled ones are zero and False in `valid` [..., k].
        kept_indices [..., k] index the tokens given, 0 in the padding. scores [..., n].

    Raises:
        InvalidInputError: shapes that do not fit, NaN or infinity, fewer than 3 samples.

    >>> a = torch.tensor([[0.4, 0.1, 0.2, 0.3]])
    >>> out = ats(torch.zeros(4, 1), a, torch.ones(1, 4, 1), 4)
    >>> out.kept_indices.tolist()  # c = 0, 0.4, 1; y = 0.4, 0.7, 1
    [0, 2, 3, 0]
    """
    check_variant("ats", variant)
    n = tokens.shape[-2] - 1
    if (
        n < 1
        or cls_attention.shape[-1] != n + 1
        or values.shape[-2] != n + 1
        or cls_attention.shape[:-1] != values.shape[:-2]
    ):
        takes = "tokens [..., n+1, d], attention of the class token [..., h, n+1], values [..., h, n+1, e]"
        raise misfit("ats", takes, tokens, cls_attention, values)
    require_finite("ats", cls_attention=cls_attention, values=values)
    scores = significance(cls_attention, values)
    ranks = _sampled_ranks(scores, _samples(keep, n), cut=variant == "program")

    # A repeated rank is replaced by n, which sorts behind every real one.
    following = torch.nn.functional.pad(ranks[..., 1:], (0, 1), value=-1)
    ranks = torch.where(ranks == following, n, ranks).sort(dim=-1).values[..., :n]
    sampled = ranks < n
    order = scores.argsort(dim=-1, stable=True)
    indices = order.gather(-1, ranks.clamp_max(n - 1)) + 1
    indices = torch.where(sampled, indices, 0)
    kept = torch.nn.functional.pad(indices, (1, 0), value=0)
    valid = torch.nn.functional.pad(sampled, (1, 0), value=True)
    picked = take_tokens(tokens, kept)
    return Reduced(
        tokens=torch.where(valid.unsqueeze(-1), picked, 0),
        kept_indices=kept,
        scores=scores,
        sources=_sources(kept, valid, n + 1) if trace else None,
        valid=valid,
    )


def significance(cls_attention: Tensor, values: Tensor) -> Tensor:
    """Normalised score of each patch: attention of the class token times the length of its value.

    Args:
        cls_attention: [..., h, n+1].
        values: [..., h, n+1, e]; the heads are concatenated for the norm.

    Returns:
        [..., n], summing to 1.

    >>> significance(torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[[1.0], [1.0], [3.0]]]))
    tensor([0.2500, 0.7500])
    """
    attention = cls_attention[..., 1:].sum(dim=-2)
    lengths = values[..., 1:, :].transpose(-2, -3).flatten(-2).norm(dim=-1)
    scores: Tensor = attention * lengths
    return scores / scores.sum(dim=-1, keepdim=True)


def _samples(keep: float, n: int) -> int:
    checked = check_keep(keep)
    references = checked if isinstance(checked, int) else resolve_keep(checked, n + 1)
    if references < 3:
        raise InvalidInputError(
            f"ats needs at least 3 reference samples (the class token and two), "
            f"but keep={keep} of {n + 1} tokens gives {references}"
        )
    return references - 1


def _sampled_ranks(scores: Tensor, samples: int, *, cut: bool) -> Tensor:
    """For each sample the rank, in ascending score, of the nearest cumulated score."""
    cumulated = scores.sort(dim=-1, stable=True).values.cumsum(dim=-1)
    low = cumulated.amin(dim=-1, keepdim=True)
    high = cumulated.amax(dim=-1, keepdim=True)
    # One patch, or all the mass on one: every entry is the top one.
    span = (high - low).clamp_min(torch.finfo(scores.dtype).tiny)
    level = (cumulated - low) / span
    start = torch.where(level > 0, level, 1.0).amin(dim=-1, keepdim=True)
    steps = torch.arange(samples, device=scores.device, dtype=scores.dtype) / (samples - 1)
    wanted = start + (1.0 - start) * steps
    hidden = max(scores.shape[-1] - samples, 0) if cut else 0
    gaps = (wanted.unsqueeze(-1) - level[..., hidden:].unsqueeze(-2)).abs()
    return gaps.argmin(dim=-1) + hidden


def _sources(kept: Tensor, valid: Tensor, length: int) -> Tensor:
    places = torch.arange(kept.shape[-1], device=kept.device).expand(kept.shape)
    out = torch.full((*kept.shape[:-1], length), -1, dtype=torch.long, device=kept.device)
    # The padding points at token 0; amax lets the -1 written there lose to the class token's 0.
    return out.scatter_reduce(-1, kept, torch.where(valid, places, -1), "amax")


def plug(host: Host) -> None:
    """Sample inside the attention of some layers of the vision tower."""
    reduce_in_tower(host, Sample(host))


class Sample(LayerStep):
    """ATS: rows go before they meet the values, so the layer's attention is written out."""

    keeps_patches = True

    def __init__(self, host: Host) -> None:
        super().__init__(host, LAYERS.of(host.method))
        self._references = 0

    def begin(self, hidden: Tensor, stream: Stream) -> Tensor:
        """Fix how many reference samples there are, and start the trace."""
        keep, whole = self.method.settled_keep, hidden.shape[1]
        asked = keep if isinstance(keep, int) else round(keep * whole)
        self._references = max(asked, MINIMUM.of(self.method))
        return super().begin(hidden, stream)

    def run(
        self,
        layer: Any,
        number: int,  # noqa: ARG002
        hidden: Tensor,
        stream: Stream,
        call: dict[str, Any],  # noqa: ARG002
    ) -> Tensor:
        """Sample rows of the attention, and let only those meet the values."""
        queries, keys, values = project(layer, hidden)
        bias = _padding_bias(stream.counts, hidden)
        weights = scores(layer, queries, keys, bias)
        with observed("reduction"):
            # Half precision cannot cumulate hundreds of small scores: they are taken before rounding.
            kept, counts = self._sample(hidden, weights[:, :, 0], values.float(), stream)
            rows = weights.to(hidden.dtype).take_along_dim(kept[:, None, :, None], dim=2)
            residual = take_tokens(hidden, kept)
            stream.counts = None if len(set(counts)) == 1 else counts
            stream.origin = _gathered(stream.origin, kept, counts)
        mixed = (rows @ values).transpose(1, 2).flatten(2)
        output: Tensor = residual + layer.self_attn.out_proj(mixed)
        return output

    def _sample(
        self, hidden: Tensor, cls_attention: Tensor, values: Tensor, stream: Stream
    ) -> tuple[Tensor, list[int]]:
        """Indices of the tokens kept, [c, t'], and how many of each crop are not padding."""
        if stream.counts is None:
            result = ats(
                hidden, cls_attention, values, self._references,
                variant=self.method.variant, trace=self.trace,
            )  # fmt: skip
            assert result.kept_indices is not None  # noqa: S101  (ats samples)
            assert result.valid is not None  # noqa: S101
            # The number of tokens depends on the data: the one read-back that ATS is defined by.
            counts: list[int] = result.valid.sum(dim=-1).tolist()
            stream.follow(result.sources)
            return result.kept_indices[:, : max(counts)], counts
        # Crops of different lengths: each on its own, since padding would shift the scores.
        singles, traces = [], []
        for crop, count in enumerate(stream.counts):
            result = ats(
                hidden[crop, :count], cls_attention[crop, :, :count], values[crop, :, :count],
                self._references, variant=self.method.variant, trace=self.trace,
            )  # fmt: skip
            assert result.kept_indices is not None  # noqa: S101
            assert result.valid is not None  # noqa: S101
            singles.append(result.kept_indices[: int(result.valid.sum())])
            if result.sources is not None:
                padding = hidden.shape[1] - count
                traces.append(torch.nn.functional.pad(result.sources, (0, padding), value=-1))
        if traces:
            stream.follow(torch.stack(traces))
        kept = torch.nn.utils.rnn.pad_sequence(singles, batch_first=True)
        return kept, [len(single) for single in singles]


def _padding_bias(counts: list[int] | None, hidden: Tensor) -> Tensor | None:
    """-inf on the logits of padding, [c, 1, 1, t]."""
    if counts is None:
        return None
    places = torch.arange(hidden.shape[1], device=hidden.device)
    outside = places >= torch.tensor(counts, device=hidden.device).unsqueeze(-1)
    bias = torch.zeros(outside.shape, dtype=hidden.dtype, device=hidden.device)
    return bias.masked_fill(outside, float("-inf"))[:, None, None, :]


def _gathered(origin: Tensor | None, kept: Tensor, counts: list[int]) -> Tensor | None:
    """First-layer indices of what is kept, -1 in the padding."""
    if origin is None:
        return None
    held = origin.gather(1, kept)
    places = torch.arange(kept.shape[1], device=kept.device)
    inside = places < torch.tensor(counts, device=kept.device).unsqueeze(-1)
    return torch.where(inside, held, -1)
