"""CrossGET: merge tokens of a vision layer on a complete graph, guided by a learned cross token.

Source: "CrossGET: Cross-Guided Ensemble of Tokens for Accelerating Vision-Language Transformers"
(Shi et al., ICML 2024) and its program sdc17/CrossGET, `LLaVA/llava/model/reducer.py`.
Place: in every CLIP layer, between attention and MLP. A learned cross token stands last in the
sequence; it and the class token (first) are never merged. With r = 13 the 578 tokens of
LLaVA-1.5 are 279 after 23 layers, and 278 (the cross token among them) reach the projector.
The published results need the learned cross tokens and fine-tuning.

Complexity, t tokens, c width of the metric: t^2*c for the complete graph, h*t^2 for the importance,
sorts, r*d for the merge, per layer. No length depends on the data.

Sources are chosen by low importance and high similarity to a token that is not itself better
connected; equal best similarities (every pair of mutual nearest neighbours) are ordered by the
sort, which leaves ties open, as in the program.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from costmodel.methods.crossget import PROTECTED, WEIGHTS, R
from hardware_specs.errors import InvalidFileError, InvalidInputError
from token_reduction.apply.places import Host, reduce_in_tower
from token_reduction.apply.tower_layer import MergingStep, project, scores
from token_reduction.tokens.checks import misfit, require_finite
from token_reduction.tokens.observation import observed
from token_reduction.tokens.reduced import Reduced
from token_reduction.tokens.selection import complement, output_places, take_tokens, unit_rows
from token_reduction.tokens.weights import read_tensors
from token_reduction.tome import proportional_bias

if TYPE_CHECKING:
    from torch import Tensor

    from token_reduction.apply.anatomy import Parts
    from token_reduction.apply.inside_tower import Stream
    from token_reduction.apply.patching import Patches


@dataclass(frozen=True, slots=True, eq=False)
class GraphMatching:
    """Which token is merged into which.

    Attributes:
        src: [..., r] tokens that go, the least worth keeping first.
        dst: [..., r] the tokens they are merged into.
        survivors: [..., t - r] everything else, ascending.
        weight: [..., r, 2] softmax of the importance of source and target.
    """

    src: Tensor
    dst: Tensor
    survivors: Tensor
    weight: Tensor


def crossget(
    tokens: Tensor,
    metric: Tensor,
    attention: Tensor,
    r: int,
    *,
    size: Tensor | None = None,
    trace: bool = False,
) -> Reduced:
    """Merge the r tokens least worth keeping into their nearest survivors.

    Formula, with sizes s and w = 2 softmax(importance of source, importance of target):
    y_t = (s_t x_t + sum over its sources of (w_src s_src x_src + (w_dst - 1) s_t x_t)) / merged s.
    Each source adds its own (w_dst - 1) term.

    Args:
        tokens: [..., t, d] residual stream: class token first, cross token last.
        metric: [..., t, c] mean over heads of the keys.
        attention: [..., t, t] mean over heads, rows are queries.
        r: tokens to merge; at most half of the unprotected ones are.
        size: [..., t, 1] from the layer before; None for ones.
        trace: also return sources.

    Returns:
        Reduced with tokens [..., t - r, d] in their old order, sizes, kept_indices (survivors)
        and, traced, sources [..., t].

    Raises:
        InvalidInputError: shapes that do not fit, a negative r, NaN or infinity.

    >>> x = torch.arange(5.0).unsqueeze(-1)
    >>> metric = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6], [0.0, 1.0], [1.0, 0.0]])
    >>> out = crossget(x, metric, torch.full((5, 5), 0.2), 1)
    >>> out.sizes.flatten().tolist().count(2.0)  # equal importance: a plain mean of one pair
    1
    """
    length = tokens.shape[-2]
    if metric.shape[:-1] != tokens.shape[:-1] or attention.shape != (*tokens.shape[:-1], length):
        takes = "tokens [..., t, d], a metric [..., t, c] and attention [..., t, t]"
        raise misfit("crossget", takes, tokens, metric, attention)
    matching = complete_graph_matching(metric, attention, r)
    if size is None:
        size = torch.ones_like(tokens[..., :1])
    scaled = tokens * size
    weight = (2.0 * matching.weight).to(tokens.dtype)
    sources, targets = take_tokens(scaled, matching.src), take_tokens(scaled, matching.dst)
    share = weight[..., :1] * sources + (weight[..., 1:] - 1.0) * targets
    merged_size = size.scatter_add(-2, matching.dst.unsqueeze(-1), take_tokens(size, matching.src))
    scaled = scaled.scatter_add(-2, matching.dst.unsqueeze(-1).expand(share.shape), share)
    sizes = take_tokens(merged_size, matching.survivors)
    return Reduced(
        tokens=take_tokens(scaled, matching.survivors) / sizes,
        kept_indices=matching.survivors,
        sizes=sizes,
        sources=_sources(matching, length) if trace else None,
    )


def token_importance(attention: Tensor) -> Tensor:
    """Attention a token receives on average, and from the cross token on top.

    Formula: mean over all rows but the last of A[i, j], plus A[last, j].

    >>> token_importance(torch.tensor([[0.5, 0.5], [0.25, 0.75]])).tolist()
    [0.75, 1.25]
    """
    return attention[..., :-1, :].mean(dim=-2) + attention[..., -1, :]


def complete_graph_matching(metric: Tensor, attention: Tensor, r: int) -> GraphMatching:
    """Choose sources and targets among all tokens but the first and the last.

    Formula: tokens are ranked by their largest cosine similarity in `metric` [..., t, c]; each may look only
    at tokens behind it in that order. Sources are the r lowest (at most half of the unprotected tokens) of
    importance, from the mean-head `attention` [..., t, t], minus the largest similarity still seen. A
    source's target is the most similar survivor.

    Raises:
        InvalidInputError: a negative r, fewer than two tokens, NaN or infinity.
    """
    length = metric.shape[-2]
    if r < 0 or length < PROTECTED:
        raise InvalidInputError(
            f"crossget merges r >= 0 tokens and needs a class and a cross token; "
            f"given r={r} and {length} tokens"
        )
    r = min(r, (length - PROTECTED) // 2)
    infinity = float("inf")
    with torch.no_grad():
        norms = metric.norm(dim=-1, keepdim=True)
        importance = token_importance(attention)
        require_finite("crossget", metric=norms, attention=importance)
        unit = unit_rows(metric, norms)
        similarity = unit @ unit.transpose(-1, -2)
        similarity.diagonal(dim1=-2, dim2=-1).fill_(-infinity)
        for protected in (0, -1):
            similarity[..., protected, :] = -infinity
            similarity[..., protected] = -infinity
        order = similarity.amax(dim=-1).argsort(dim=-1, descending=True)
        rank = output_places(order, length)
        ahead = rank.unsqueeze(-1) > rank.unsqueeze(-2)
        seen = similarity.masked_fill(ahead, -infinity).amax(dim=-1)
        worth = importance - seen
        worth[..., 0] = infinity
        worth[..., -1] = infinity
        src = worth.argsort(dim=-1)[..., :r]
        gone = src.unsqueeze(-2).expand(*src.shape[:-1], r, r)
        dst = take_tokens(similarity, src).scatter(-1, gone, -infinity).argmax(dim=-1)
        pair = torch.stack((importance.gather(-1, src), importance.gather(-1, dst)), dim=-1)
        return GraphMatching(src, dst, complement(src, length), weight=pair.softmax(dim=-1))


def _sources(matching: GraphMatching, length: int) -> Tensor:
    out = output_places(matching.survivors, length)
    return out.scatter(-1, matching.src, out.gather(-1, matching.dst))


def plug(host: Host) -> None:
    """Merge in every layer of the vision tower, guided by a cross token."""
    reduce_in_tower(host, CrossGuided(host))


class CrossGuided(MergingStep):
    """CrossGET: it looks at the attention of all tokens, so the layer's attention is written out."""

    _cross: Tensor

    def __init__(self, host: Host) -> None:
        super().__init__(host, R.of(host.method))

    def attach(self, parts: Parts, patches: Patches) -> None:
        """Load the cross tokens, or make random ones and say so."""
        super().attach(parts, patches)
        config: Any = parts.towers[0].module.config
        path = WEIGHTS.of(self.method)
        shape = (len(parts.towers[0].layers), int(config.hidden_size))
        if path is not None:
            self._cross = load_cross_tokens(Path(path), shape)
            return
        generator = torch.Generator().manual_seed(0)
        self._cross = 0.02 * torch.randn(shape, generator=generator)
        self.record.notes.append(
            "crossget runs with random cross tokens: its published results need learned ones, "
            "from a safetensors file given as weights=..."
        )

    def begin(self, hidden: Tensor, stream: Stream) -> Tensor:
        """Append the cross token, which starts as a copy of the class token."""
        self._cross = self._cross.to(hidden)
        hidden = torch.cat((hidden, hidden[:, :1]), dim=1)
        return super().begin(hidden, stream)

    def run(
        self,
        layer: Any,
        number: int,
        hidden: Tensor,
        stream: Stream,
        call: dict[str, Any],  # noqa: ARG002
    ) -> Tensor:
        """Add the layer's cross token, attend in proportion to size, merge on the graph."""
        with observed("reduction"):
            guide = hidden[:, -1:].detach() + self._cross[number]
            hidden = torch.cat((hidden[:, :-1], guide), dim=1)
            bias = None if stream.size is None else proportional_bias(stream.size).to(hidden.dtype)
        queries, keys, values = project(layer, hidden)
        weights = scores(layer, queries, keys, bias).to(hidden.dtype)
        mixed = (weights @ values).transpose(1, 2).flatten(2)
        hidden = hidden + layer.self_attn.out_proj(mixed)
        with observed("reduction"):
            merged = crossget(
                hidden, keys.mean(dim=1), weights.mean(dim=1), self.merges[number],
                size=stream.size, trace=self.trace,
            )  # fmt: skip
            stream.size = merged.sizes
            stream.follow(merged.sources)
        return merged.tokens


def load_cross_tokens(path: Path, shape: tuple[int, int]) -> Tensor:
    """Read CrossGET's learned tokens, [layers, width] = `shape`, from a safetensors file.

    The tensor's name ends in `cross_image`, its shape is [1, layers, width] or [layers, width].

    Raises:
        InvalidFileError: no file, no such tensor, or another shape.
    """
    (tokens,) = read_tensors("crossget", path, "cross_image")
    if tokens.ndim == 3 and tokens.shape[0] == 1:
        tokens = tokens[0]
    if tuple(tokens.shape) != shape:
        raise InvalidFileError(
            f"{path} holds cross tokens {tuple(tokens.shape)}, this tower needs {shape}"
        )
    return tokens
