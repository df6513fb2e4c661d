"""SparseVLM: keep the image tokens with most attention from the text; part of the rest is recycled.

Source: "SparseVLM: Visual Token Sparsification for Efficient Vision-Language Model Inference" (Zhang
et al., ICML 2025) and its program Gumpest/SparseVLMs, v1.5.
Place: language-model layers 2, 6 and 15, at prefill, after attention. Needs the rows of the raters
in those layers' attention. Positions are renumbered (v2.0 keeps them).

Complexity, n image tokens, t text tokens, h heads, d width, p recycled: n*t*d once for the raters,
h*t*n per layer, p^2*d for the clusters. How many raters there are depends on the data but only
weights a mean, so nothing has to be read back.

Recycled are 30 % of the tokens pruned, in p // 10 + 1 clusters. The program breaks ties of the density
with random noise of 1e-6 (`noise`); without any, the sort's order decides. The paper derives the counts
from the rank of the attention; the program has a table, `costmodel.methods.sparsevlm.KEEP_LISTS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from costmodel.methods.keep import resolve_keep
from costmodel.methods.sparsevlm import COUNTS, LAYERS, RECYCLED_SHARE, counts_by_layer
from hardware_specs.errors import InvalidInputError
from token_reduction.apply.inside_llm import Policy
from token_reduction.apply.llm_attention import AttentionProbe
from token_reduction.apply.llm_policy import contiguous_start, require_text_behind, text_before
from token_reduction.apply.llm_tokens import lay_out
from token_reduction.apply.places import Host, reduce_between_layers
from token_reduction.fastv import select_image_tokens
from token_reduction.tokens.checks import misfit, require_finite
from token_reduction.tokens.density import scores_of
from token_reduction.tokens.selection import complement, take_tokens, top_indices

if TYPE_CHECKING:
    from torch import Tensor

    from costmodel.methods import Method
    from token_reduction.apply.anatomy import Parts
    from token_reduction.apply.inside_llm import LayerReduction, Prefill
    from token_reduction.tokens.reduced import Selection


def text_raters(image_states: Tensor, text_states: Tensor) -> Tensor:
    """Which text tokens relate to the image, as a mask [..., t].

    Formula: m = softmax over text of v t^T, averaged over image tokens; raters are above mean(m).

    Args:
        image_states: [..., n, d] image tokens at the input of the language model.
        text_states: [..., t, d] text tokens after the image.

    Raises:
        InvalidInputError: NaN or infinity.

    >>> text_raters(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 3.0]])).tolist()
    [True, False]
    """
    logits = image_states @ text_states.transpose(-1, -2)
    wide = torch.promote_types(logits.dtype, torch.float32)
    rating = logits.softmax(dim=-1, dtype=wide).mean(dim=-2)
    require_finite("sparsevlm", states=rating)
    return rating > rating.mean(dim=-1, keepdim=True)


def sparsevlm(
    attention: Tensor, raters: Tensor, keep: float, *, start: int, image_tokens: int
) -> Selection:
    """Keep the image tokens the raters attend to.

    Formula: score_j = mean over raters i and over heads of A[i, j].

    Args:
        attention: [..., h, t, s] rows of the text tokens after the image.
        raters: [..., t] mask from `text_raters`.
        keep: image tokens kept: a count, or a ratio of those left rounded to nearest.
        start: sequence position of the first image token.
        image_tokens: image tokens the sequence still has.

    Returns:
        Selection over the whole sequence, ascending, all text kept, scores [..., n].

    Raises:
        InvalidInputError: shapes that do not fit, NaN or infinity, a keep out of range.

    >>> rows = torch.tensor([[[0.1, 0.2, 0.7, 0.0], [0.0, 0.9, 0.0, 0.1]]])
    >>> mask = torch.tensor([True, False])
    >>> sparsevlm(rows, mask, 1, start=1, image_tokens=2).kept_indices.tolist()
    [0, 2, 3]
    """
    if attention.ndim < 3 or raters.shape != (*attention.shape[:-3], attention.shape[-2]):
        takes = "attention [..., h, t, s] and raters [..., t]"
        raise misfit("sparsevlm", takes, attention, raters)
    chosen = raters.unsqueeze(-1)
    rows = attention.mean(dim=-3)
    total = torch.where(chosen, rows, 0).sum(dim=-2)
    row = total / chosen.sum(dim=-2).clamp_min(1)
    return select_image_tokens(
        row, keep, start=start, image_tokens=image_tokens, method="sparsevlm"
    )


def recycle(image_states: Tensor, selection: Selection, *, noise: Tensor | None = None) -> Tensor:
    """Merge the better part of the pruned tokens into a few: [..., p // 10 + 1, d], or none where p is 0.

    Formula: the int(0.3 * pruned) best-scored pruned tokens, p of them, in p // 10 + 1 clusters.

    Args:
        image_states: [..., n, d] hidden states of the image tokens before the pruning.
        selection: what `sparsevlm` gave for them.
        noise: [..., p] added to the density.
    """
    scores = selection.scores
    if scores is None:
        raise InvalidInputError("recycling needs the selection's scores")
    n = image_states.shape[-2]
    pruned = complement(selection.image_indices, n)
    count = int(pruned.shape[-1] * RECYCLED_SHARE)
    if count == 0:
        return image_states[..., :0, :]
    best = pruned.gather(-1, top_indices(scores.gather(-1, pruned), count))
    return cluster_and_merge(take_tokens(image_states, best), count // 10 + 1, noise=noise)


def cluster_and_merge(tokens: Tensor, clusters: int, *, noise: Tensor | None = None) -> Tensor:
    """Density-peak clustering (DPC-kNN) of tokens [..., p, d]: one mean per cluster, [..., clusters, d].

    Formula: dist = |x_i - x_j| / sqrt(d); density = exp(-mean of the squared distances to the
    `clusters` nearest), plus `noise` [..., p]. A centre has a large density times distance to the nearest
    denser token; every token joins its nearest centre. Centres come in falling score.

    Raises:
        InvalidInputError: more clusters than tokens, NaN or infinity.

    >>> x = torch.tensor([[0.0], [0.3], [0.5], [8.0], [8.2], [9.0]])
    >>> [round(v, 2) for v in cluster_and_merge(x, 2).flatten().tolist()]
    [0.27, 8.4]
    """
    p, d = tokens.shape[-2:]
    if not 1 <= clusters <= p:
        raise InvalidInputError(f"{p} tokens cannot form {clusters} clusters")
    require_finite("sparsevlm", tokens=tokens)
    with torch.no_grad():
        wide = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
        distance = torch.cdist(wide, wide) / d**0.5
        centres = scores_of(distance, clusters, noise).topk(clusters, dim=-1).indices
        group = take_tokens(distance, centres).argmin(dim=-2)
        # A centre stays with itself even where a duplicate of it is one too.
        own = torch.arange(clusters, device=group.device).expand(centres.shape)
        group = group.scatter(-1, centres, own)
    share = torch.nn.functional.one_hot(group, clusters).to(wide.dtype).transpose(-1, -2)
    return ((share @ wide) / share.sum(dim=-1, keepdim=True)).to(tokens.dtype)


def plug(host: Host) -> None:
    """Cut behind some layers of the language model, and put recycled tokens in."""
    reduce_between_layers(host, RatedByText)


class RatedByText(Policy):
    """SparseVLM: behind each of its layers, keep what the raters attend to and a few recycled tokens.

    Raises:
        InvalidInputError: a layer the model does not have, or no counts for this keep.
    """

    renumbers = True

    def __init__(self, method: Method, parts: Parts) -> None:
        self._method = method
        self._counts = counts_by_layer(
            method.keep, LAYERS.of(method), COUNTS.of(method), len(parts.layers)
        )
        self._probes = {layer: AttentionProbe(parts, layer - 1) for layer in self._counts}
        self.probes = tuple(self._probes.values())
        self._raters: list[Tensor | None] = []

    def forget(self) -> None:
        """Forget the raters, too."""
        super().forget()
        self._raters = []

    def cuts_at(self, layer: int) -> bool:
        """Behind its layers; the raters are found at the entry."""
        return layer == 0 or layer in self._counts

    def enter(self, layer: int, now: Prefill, hidden: Tensor, cutter: LayerReduction) -> Tensor:
        """Find the raters at the entry; behind its layers, drop and recycle."""
        if layer == 0:
            require_text_behind(now, self._method.name)
            if COUNTS.of(self._method) is None:
                for count in filter(None, now.tokens.visual_counts()):
                    resolve_keep(self._method.settled_keep, count)  # refuses more than there are
            self._raters = [self._rate(now, hidden, row) for row in range(hidden.shape[0])]
        if layer not in self._counts:
            return hidden
        probe = self._probes[layer]
        wanted = int(self._counts[layer])
        old, counts = now.tokens, now.tokens.visual_counts()
        known = {
            row: group.origin[place] for group in old.groups for place, row in enumerate(group.rows)
        }
        states, index, starts, made = [], [], [], []
        for row, count in enumerate(counts):
            span = old.span(row)
            x, places, origin = hidden[row, span], old.index[row, span], known[row]
            start = text_before(now, row) if count else 0
            if count > wanted:
                text = slice(start + count, len(x))
                raters = self._raters[row]
                assert raters is not None  # noqa: S101  (a row with visual tokens was rated)
                kept = sparsevlm(
                    probe.block(row, span, text), raters, wanted, start=start, image_tokens=count
                )
                image = x[start : start + count]
                new = recycle(image, kept)
                x = torch.cat((x[:start], image[kept.image_indices], new, x[text]))
                # What is made anew takes the places of what went: places only order and mask.
                left = wanted + len(new)
                places = torch.cat((places[: start + left], places[text]))
                origin = torch.nn.functional.pad(
                    origin[kept.image_indices], (0, len(new)), value=-1
                )
            states.append(x)
            index.append(places)
            starts.append(start)
            made.append(origin)
        probe.forget()
        tokens = lay_out(index, starts, made, old.on_right)
        cutter.settle(now, tokens)
        out = hidden.new_zeros(len(states), tokens.width, hidden.shape[2])
        for row, x in enumerate(states):
            out[row, tokens.span(row)] = x
        return out

    def _rate(self, now: Prefill, hidden: Tensor, row: int) -> Tensor | None:
        count = now.tokens.visual_counts()[row]
        if not count:
            return None
        for group in now.tokens.groups:
            if row in group.rows:
                contiguous_start(group, now, self._method.name)
        states = hidden[row, now.tokens.span(row)]
        start = text_before(now, row)
        return text_raters(states[start : start + count], states[start + count :])
