"""PruMerge and PruMerge+: keep the patches the class token attends to, merge the rest into them.

Source: "LLaVA-PruMerge: Adaptive Token Reduction for Efficient Large Multimodal Models" (Shang et
al., 2024) and its program 42Shawn/LLaVA-PruMerge, `token_prune_merge_advanced[_plus]`.
Place: inside the vision tower's output, after CLIP and before the projector. Queries and keys are
the raw outputs (bias, no scaling, heads not split) of q_proj and k_proj of the LAST CLIP layer;
features are the input of that layer. The language model then sees a plain shorter sequence.

Complexity, n patches, m kept, c width of the keys, d of the features: (n+1)*c for the class token's
row, m*n*c for the neighbours, 32*m*d for the merge and n*d for the extra token (multiply-adds). The
program computes all n^2*c of the attention to use one row of it, and walks over images and kept
tokens in Python.

The program (default) and the paper differ:

    item          program                               variant="paper"
    similarity    cosine of keys                        dot product of keys
    neighbours    32, among pruned and kept             32 (the paper names no k), among pruned
    update        x_i + sum a_j x_j                     sum of a_j x_j over the cluster, i included
    extra token   sum of a_j x_j over the pruned, last  none
    PruMerge+     grid of step int(int(1/ratio)/3)      as many again, evenly spaced (2m in all)

The paper leaves open which evenly spaced patches PruMerge+ adds; here they are every (n-m)/m-th of
those not yet kept. The program writes the last grid position as 575; here it is n-1, equal at 576.
Both take the layer from the caller: the paper says the penultimate one, the program reads the last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from costmodel.methods.keep import resolve_keep
from costmodel.methods.prumerge import NEIGHBOURS, PRUMERGE_PLUS, spatial_supplement
from hardware_specs.errors import InvalidInputError
from token_reduction.apply.class_attention import QueryKeyProbe, require_patches
from token_reduction.apply.places import Host, reduce_crops
from token_reduction.tokens.checks import (
    check_mode,
    misfit,
    nonfinite_flag,
    reject,
    require_finite,
)
from token_reduction.tokens.reduced import Reduced
from token_reduction.tokens.selection import (
    check_variant,
    complement,
    flat_rows,
    take_tokens,
    top_indices,
)

if TYPE_CHECKING:
    from torch import Tensor

    from token_reduction.apply.anatomy import Tower


def prumerge(
    features: Tensor,
    queries: Tensor,
    keys: Tensor,
    *,
    neighbours: int = NEIGHBOURS.default,
    keep: float | None = None,
    spatial: bool = False,
    variant: str = "program",
) -> Reduced:
    """Prune patches by class-token attention and merge what is pruned (PruMerge, PruMerge+).

    Formula: a = softmax(q_cls k^T / sqrt(c))[1:] over one head of width c; kept = the m largest;
    out_i = x_i + sum over the `neighbours` most similar j of a_j x_j; one extra token
    sum over pruned j of a_j x_j comes last. Without `keep`, m = int(n * share of outliers),
    an outlier being a > Q3 + 1.5 (Q3 - Q1), the quartiles taken over the whole batch.

    Args:
        features: [..., n, d] patch features without the class token.
        queries: [..., n+1, c], or [..., 1, c] with the class token's row alone.
        keys: [..., n+1, c], class token first.
        neighbours: how many tokens are merged into each kept one.
        keep: tokens chosen by attention: a count, or a ratio of n rounded down; None is adaptive.
            The extra token and PruMerge+'s grid come on top of it.
        spatial: PruMerge+: add a spatial grid to what attention chose.
        variant: "program" or "paper".

    Returns:
        Reduced with tokens [..., m+1, d] ("paper": m), kept_indices [..., m] in descending
        attention (the grid, ascending, after them), cls_attention [..., n] and merge_weights.
        A neighbour may also be a kept token, so a merge weight may appear in several rows.

    Raises:
        InvalidInputError: shapes that do not fit, NaN or infinity, fewer than neighbours + 1
            tokens, a keep out of range; PruMerge+ with no outlier (its step would be 1/0), with
            more than a third of the tokens (its step would be 0), or for more than one image.

    >>> x = torch.eye(4)
    >>> key = torch.tensor([[0.0], [9.0], [1.0], [1.0], [1.0]])
    >>> out = prumerge(x, torch.ones(5, 1), key, neighbours=1, keep=1)
    >>> out.kept_indices.tolist(), tuple(out.tokens.shape)  # the token with the largest logit
    ([0], (2, 4))
    """
    check_variant("prumerge", variant)
    _check_shapes(features, queries, keys)
    logits = (queries[..., :1, :] @ keys.transpose(-1, -2)) * keys.shape[-1] ** -0.5
    attention = logits.softmax(dim=-1)[..., 0, 1:]

    paper = variant == "paper"
    kept = _choose(attention, features, keep=keep, spatial=spatial, paper=paper)
    nearest = _neighbours(keys[..., 1:, :], kept, neighbours=neighbours, paper=paper)
    return _merge(features, attention, kept, nearest, paper=paper)


def outlier_count(attention: Tensor) -> Tensor:
    """How many attention values are outliers, as a one-element tensor on their device.

    Formula: #(a > Q3 + 1.5 (Q3 - Q1)), quartiles by linear interpolation over all values of the
    batch, in float32.

    >>> outlier_count(torch.tensor([1.0, 2.0, 3.0, 4.0, 9.0])).item()  # Q1 2, Q3 4, bound 7
    1
    """
    values = attention.detach().float().flatten()
    ranked = values.sort().values
    lower, upper = (_quantile(ranked, share) for share in (0.25, 0.75))
    return (values > upper + 1.5 * (upper - lower)).sum()


def _quantile(ranked: Tensor, share: float) -> Tensor:
    """Linear interpolation between the two neighbours of position share * (count - 1)."""
    position = share * (ranked.shape[0] - 1)
    below = int(position)
    above = min(below + 1, ranked.shape[0] - 1)
    return torch.lerp(ranked[below], ranked[above], position - below)


def _choose(
    attention: Tensor, features: Tensor, *, keep: float | None, spatial: bool, paper: bool
) -> Tensor:
    """Indices to keep, [..., m]: by attention, descending, then PruMerge+'s by place."""
    n = attention.shape[-1]
    images = attention.numel() // n
    grid = spatial and not paper
    if grid and images != 1:
        raise InvalidInputError(
            f"prumerge+ adds a different number of grid tokens to each of {images} images; "
            "call it once per image"
        )
    order = top_indices(attention, n)
    if keep is not None and not grid:
        require_finite("prumerge", attention=attention, features=features)
        count = resolve_keep(keep, n, rounding="down")
        return _spread(order, count) if spatial else order[..., :count]

    # The token count depends on the data, so one read-back is forced; the check rides along.
    checked = check_mode(attention.device) != "off"
    parts = [outlier_count(attention).reshape(1)]
    parts.append(nonfinite_flag(attention, features).reshape(1).long())
    if grid:
        parts.append(order.flatten())
    outliers, nonfinite, *ranking = torch.cat(parts).tolist()
    if nonfinite and checked:
        raise reject("prumerge", "queries, keys or features")
    if keep is None:
        ratio = outliers / (images * n)
        count = int(n * ratio)
    else:
        count = resolve_keep(keep, n, rounding="down")
        ratio = keep if isinstance(keep, float) else count / n
    if not spatial:
        return order[..., :count]
    if paper:
        return _spread(order, count)
    attended = set(ranking[:count])
    added = [place for place in spatial_supplement(n, ratio) if place not in attended]
    places = torch.tensor(added, dtype=order.dtype).to(order.device, non_blocking=True)
    places = places.expand(*order.shape[:-1], len(added))
    return torch.cat((order[..., :count], places), dim=-1)


def _spread(order: Tensor, count: int) -> Tensor:
    """Add as many evenly spaced tokens as attention chose, out of those it did not choose."""
    n = order.shape[-1]
    if 2 * count > n:
        raise InvalidInputError(
            f"prumerge+ as the paper has it keeps 2 x {count} tokens, but there are {n}; "
            f"give a keep of at most {n // 2}"
        )
    rest = complement(order[..., :count], n)
    places = torch.arange(count, device=order.device)
    places = ((2 * places + 1) * (n - count)).div(2 * max(count, 1), rounding_mode="floor")
    return torch.cat((order[..., :count], rest[..., places]), dim=-1)


def _neighbours(keys: Tensor, kept: Tensor, *, neighbours: int, paper: bool) -> Tensor:
    """Tokens [..., m, k] merged into each kept one: the most similar by key, in any order."""
    n, m = keys.shape[-2], kept.shape[-1]
    candidates = n - m if paper else n - 1
    if neighbours < 0:
        raise InvalidInputError(f"neighbours={neighbours} must not be negative")
    if m and not paper and neighbours > candidates:
        raise InvalidInputError(
            f"prumerge merges {neighbours} neighbours into each kept token, but with {n} tokens "
            f"there are only {candidates} others; give at least {neighbours + 1} tokens, or "
            "fewer neighbours"
        )
    chosen = take_tokens(keys, kept)
    if paper:
        similarity = chosen @ keys.transpose(-1, -2)
    else:
        # The chosen keys are scaled before the product, which could overflow float16, and the
        # others after it, which saves a copy of all keys.
        norms = keys.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(keys.dtype).tiny)
        chosen = chosen / take_tokens(norms, kept)
        similarity = (chosen @ keys.transpose(-1, -2)).div_(norms.transpose(-1, -2))
    barred = kept.unsqueeze(-2).expand(*kept.shape[:-1], m, m) if paper else kept.unsqueeze(-1)
    similarity = similarity.scatter(-1, barred, float("-inf"))
    # The sum over neighbours has no order, so neither needs the list.
    return similarity.topk(min(neighbours, candidates), dim=-1, sorted=False).indices


def _merge(
    features: Tensor, attention: Tensor, kept: Tensor, nearest: Tensor, *, paper: bool
) -> Reduced:
    """Add its neighbours to each kept token, and append what is left of the pruned ones."""
    lead, (m, k) = attention.shape[:-1], nearest.shape[-2:]
    shares = attention.to(features.dtype)
    tokens = take_tokens(features, kept)
    own = shares.gather(-1, kept).unsqueeze(-1)
    if paper:
        tokens = tokens * own
    weights = shares.gather(-1, nearest.flatten(-2)).reshape(nearest.shape)
    if k:
        table, rows = flat_rows(features, nearest.flatten(-2))
        merged = torch.nn.functional.embedding_bag(
            rows.reshape(-1, k), table, per_sample_weights=weights.reshape(-1, k), mode="sum"
        )
        tokens = tokens + merged.reshape(tokens.shape)
    extra = None
    if not paper:
        extra = shares.scatter(-1, kept, 0.0).unsqueeze(-2)
        tokens = torch.cat((tokens, extra @ features), dim=-2)

    def merge_weights() -> Tensor:
        matrix = weights.new_zeros(*lead, m, shares.shape[-1]).scatter(-1, nearest, weights)
        matrix = matrix.scatter(-1, kept.unsqueeze(-1), own if paper else torch.ones_like(own))
        return matrix if extra is None else torch.cat((matrix, extra), dim=-2)

    return Reduced(
        tokens=tokens,
        kept_indices=kept,
        selection_order=kept,
        cls_attention=attention,
        build_merge_weights=merge_weights,
    )


def _check_shapes(features: Tensor, queries: Tensor, keys: Tensor) -> None:
    n = features.shape[-2] if features.ndim >= 2 else 0
    if (
        n < 1
        or keys.ndim != features.ndim
        or queries.ndim != keys.ndim
        or keys.shape[-2] != n + 1
        or queries.shape[-2] not in (1, n + 1)
        or queries.shape[-1] != keys.shape[-1]
        or keys.shape[:-2] != features.shape[:-2]
        or queries.shape[:-2] != features.shape[:-2]
    ):
        takes = (
            "features [..., n, d] with keys [..., n+1, c], the class token's among them, and queries "
            "[..., n+1 or 1, c]"
        )
        raise misfit("prumerge", takes, features, keys, queries)


def plug(host: Host) -> None:
    """Merge the patches of all crops before the projector.

    The adaptive threshold is taken over all crops of a forward, as the program does over its batch, and
    every crop then keeps the same number. PruMerge+ adds a different number of grid tokens to each crop,
    so it is called crop by crop.
    """
    method, plus = host.method, host.method.info is PRUMERGE_PLUS
    host.parts.require_vision_layers(method.name)
    host.parts.require_class_token(method.name)
    # The paper reads the layer whose output the projector gets, the program the last one.
    probe = QueryKeyProbe(host, -2 if method.variant == "paper" else -1)

    def merged(*crops: Tensor) -> Reduced:
        return prumerge(
            *crops,
            neighbours=NEIGHBOURS.of(method),
            keep=method.keep,
            spatial=plus,
            variant=method.variant,
        )

    def merge(features: Tensor, tower: Tower) -> Reduced | list[Reduced]:
        require_patches(method.name, features, tower)
        queries, keys = probe.take()
        if not plus or method.variant == "paper":
            return merged(features, queries, keys)
        return [merged(*crop) for crop in zip(features, queries, keys, strict=True)]

    reduce_crops(host, merge, before_projector=True)
