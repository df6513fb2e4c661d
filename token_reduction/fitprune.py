"""FitPrune: delete a few image tokens after the attention of every language-model layer.

Source: "Fit and Prune: Fast and Training-free Visual Token Pruning for Multi-modal Large Language
Models" (Ye et al., AAAI 2025) and its program ywh187/FitPrune.
Place: inside every language-model layer, between attention and FFN, at prefill. Attention output and
residual lose the deleted rows, o_proj and the FFN run on the rest; the cache of layer l holds the
tokens from before its deletion. Positions stay the original ones.
Needs: the full attention map of every layer that deletes tokens, so no fused attention there; layers
that delete nothing run as the model is set.

Complexity, h heads, s tokens: h*s^2 for the maximum over heads and 2*s^2 for the two sums, per layer.

How many tokens each layer deletes is a scheme, fitted once per model by `search_scheme` on a few
samples. The program's schemes for LLaVA-1.5-7B (32 layers, 576 image tokens) are shipped with
`costmodel.methods.fitprune`, which stretches them to another depth or token count.

Program and paper: at inference the program does not normalise the text-to-image sums, which moves
no rank within one call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from costmodel.methods.fitprune import SCHEME, scheme_for
from hardware_specs.errors import InvalidInputError
from token_reduction.apply.inside_llm import Policy
from token_reduction.apply.llm_attention import (
    attention_weights,
    behind_attention,
    causal_mask,
    heads_of,
    project,
    rotate,
    split_heads,
)
from token_reduction.apply.llm_policy import contiguous_start, require_text_behind, rows_of
from token_reduction.apply.places import Host, reduce_between_layers
from token_reduction.caches import cache_in
from token_reduction.tokens.checks import misfit, require_finite
from token_reduction.tokens.observation import observed
from token_reduction.tokens.reduced import Selection
from token_reduction.tokens.selection import (
    bottom_indices,
    check_image_span,
    complement,
    image_positions,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from costmodel.methods import Method
    from token_reduction.apply.anatomy import Parts
    from token_reduction.apply.inside_llm import LayerReduction, Prefill
    from token_reduction.apply.patching import Patches


def fitprune(
    attention: Tensor, delete: int, *, start: int | Tensor, image_tokens: int
) -> Selection:
    """Delete the image tokens with the least attention from both the image and the text.

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

    Formula: A = max over heads of `attention` [..., h, s, s]; self_j = sum over image rows of A[i, j] / n,
    cross_j = sum over later rows of A[i, j], for the n image tokens from position `start` on. Returns
    (self, cross), each [..., n], in float32 or wider; `search_scheme` takes them per layer.

    Raises:
        InvalidInputError: as for `fitprune`.
    """
    if attention.ndim < 3 or attention.shape[-1] != attention.shape[-2]:
        raise misfit("fitprune", "attention [..., h, s, s]", attention)
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

    `received_self` and `received_cross` are [layers, n] from `received_attention` on the untouched model.
    Average the schemes of several samples with `mean_scheme`.

    Raises:
        InvalidInputError: shapes that differ, NaN, a keep outside (0, 1].

    >>> flat = torch.ones(2, 4)
    >>> search_scheme(flat, flat, keep=0.5, hidden_size=8, intermediate_size=8)
    (2, 1)
    """
    if received_self.ndim != 2 or received_self.shape != received_cross.shape:
        takes = "two tables [layers, image tokens]"
        raise misfit("the scheme search", takes, received_self, received_cross)
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


def plug(host: Host) -> None:
    """Delete after the attention of the language model's layers."""
    reduce_between_layers(host, FittedDeletion)


class FittedDeletion(Policy):
    """FitPrune: each layer computes its attention in the open and deletes rows before o_proj and the FFN."""

    def __init__(self, method: Method, parts: Parts) -> None:
        self.method = method
        self._layers = len(parts.layers)
        self._deletions: dict[int, tuple[int, ...]] = {}
        self._now: Prefill | None = None
        self._cutter: LayerReduction | None = None

    def attach(self, parts: Parts, patches: Patches) -> None:
        """Replace the layers' forwards."""
        for number, layer in enumerate(parts.layers):
            patches.replace(layer, "forward", self._forward(parts, layer, number))

    def begin(self, now: Prefill) -> None:
        """Fix how many tokens each layer deletes from sequences of each visual token count."""
        counts = {len(places) for places in now.visual_places}
        self._deletions = {count: self._scheme(count) for count in counts}
        if any(map(any, self._deletions.values())):
            require_text_behind(now, self.method.name)
        self._now = now

    def _scheme(self, count: int) -> tuple[int, ...]:
        layers = self._layers
        if count == 0:
            return (0,) * layers
        method = self.method
        scheme = scheme_for(method.settled_keep, SCHEME.of(method), layers, count)
        return tuple(int(deleted) for deleted in scheme)

    def forget(self) -> None:
        """Forget the prefill."""
        self._now = self._cutter = None

    def enter(self, layer: int, now: Prefill, hidden: Tensor, cutter: LayerReduction) -> Tensor:  # noqa: ARG002
        """Drop nothing before the attention."""
        self._cutter = cutter
        return hidden

    def _forward(self, parts: Parts, layer: Any, number: int) -> Callable[..., Any]:
        original = layer.forward
        heads = heads_of(layer.self_attn, parts.language.config)

        def forward(hidden_states: Tensor, **call: Any) -> Any:
            now = self._now
            if now is None or not any(scheme[number] for scheme in self._deletions.values()):
                return original(hidden_states, **call)
            attention = layer.self_attn
            normed = layer.input_layernorm(hidden_states)
            queries, keys, values = (
                split_heads(project(attention, which, normed), heads.dim) for which in "qkv"
            )
            queries, keys = (rotate(part, *call["position_embeddings"]) for part in (queries, keys))
            cache = cache_in(call)
            if cache is not None:
                keys, values = cache.update(keys, values, attention.layer_idx)
            mask = call.get("attention_mask")
            if mask is None:
                mask = causal_mask(queries.shape[2], queries.device)
            weights = attention_weights(queries, keys, heads, mask)
            grouped = weights.reshape(weights.shape[0], heads.kv, -1, weights.shape[-1])
            mixed = (grouped @ values).view(*queries.shape).transpose(1, 2).flatten(2)
            with observed("reduction"):
                mixed, residual = self._delete(now, number, weights, mixed, hidden_states)
            return behind_attention(layer, residual, mixed)

        return forward

    def _delete(self, now: Prefill, number: int, weights: Tensor, *states: Tensor) -> list[Tensor]:
        """Drop the rows of the tokens with the least attention from image and text."""
        valid = now.tokens.valid()
        if not now.whole.is_full:
            real = torch.from_numpy(now.prompt.real).to(weights.device)
            here = real.take_along_dim(now.tokens.index, 1)
            here = here if valid is None else here & valid
            # Rows of padding have attention too, and are no queries of the prompt.
            weights = weights * here[:, None, :, None]
        chosen = []
        for group, whole in zip(now.tokens.groups, now.whole.groups, strict=True):
            count = group.places.shape[1]
            scheme = self._deletions[whole.places.shape[1]]
            if not count:
                chosen.append(group.places)
                continue
            kept = fitprune(
                rows_of(weights, group, now.tokens),
                scheme[number],
                start=contiguous_start(group, now, self.method.name),
                image_tokens=count,
            )
            chosen.append(kept.image_indices)
        assert self._cutter is not None  # noqa: S101  (the layer was entered)
        return self._cutter.narrow(now, chosen, *states)
