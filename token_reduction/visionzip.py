"""VisionZip: the patches the class token attends to, and a few means of the rest.

Source: "VisionZip: Longer is Better but Not Necessary in Vision Language Models" (Yang et al.,
CVPR 2025) and its program dvlab-research/VisionZip.
Place: before the projector. Attention and keys of CLIP layer -2, whose output is the feature; the
class token itself is among the kept ones.

Complexity, n tokens, m contextual ones, c width: h*n for the scores, m*n*c for the assignment, n*d
for the means. No length depends on the data. Published settings (dominant + contextual): 54 + 10,
108 + 20, 162 + 30. Program and paper agree.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from costmodel.methods.keep import resolve_keep
from costmodel.methods.visionzip import contextual_tokens
from hardware_specs.errors import InvalidInputError
from token_reduction.apply.anatomy import feature_depth
from token_reduction.apply.class_attention import ClassAttention, require_patches
from token_reduction.apply.places import Host, reduce_crops, reduce_items
from token_reduction.apply.received_attention import ReceivedAttention
from token_reduction.tokens.checks import misfit, require_finite
from token_reduction.tokens.reduced import Reduced
from token_reduction.tokens.selection import complement, take_tokens, top_indices, unit_rows

if TYPE_CHECKING:
    from torch import Tensor

    from token_reduction.apply.anatomy import Tower
    from token_reduction.apply.crops import Item


def split_keep(keep: float, n: int) -> tuple[int, int]:
    """(dominant, contextual) for a number of tokens in all, in the published proportion 54 : 10.

    >>> split_keep(64, 576), split_keep(128, 576), split_keep(192, 576)
    ((54, 10), (108, 20), (162, 30))
    """
    count = resolve_keep(keep, n)
    contextual = int(contextual_tokens(count))
    return count - contextual, contextual


def visionzip(
    tokens: Tensor, cls_attention: Tensor, metric: Tensor, *, dominant: int, contextual: int
) -> Reduced:
    """Keep dominant tokens and merge the others into evenly spaced ones of them.

    Formula: dominant = the class token and the `dominant` - 1 patches with the largest sum over
    heads of its attention. Of the r others every max(1, r // contextual)-th is a target; each of
    the rest joins the target most similar in cosine of `metric`;
    out = target + mean of what joined it.

    Args:
        tokens: [..., n+1, d] features with the class token first.
        cls_attention: [..., h, n+1] the class token's row.
        metric: [..., n+1, c] mean over heads of the keys.
        dominant: tokens kept as they are, the class token among them.
        contextual: merged tokens; 0 for none.

    Returns:
        Reduced with tokens [..., dominant + contextual, d]: dominant in spatial order, then
        contextual; kept_indices are the dominant ones; cls_attention [..., n] is the sum.

    Raises:
        InvalidInputError: lengths that differ, NaN or infinity, more tokens than there are.

    >>> x = torch.tensor([[9.0], [1.0], [2.0], [4.0]])
    >>> row = torch.tensor([[0.1, 0.6, 0.2, 0.1]])
    >>> visionzip(x, row, torch.ones(4, 2), dominant=2, contextual=1).tokens.flatten().tolist()
    [9.0, 1.0, 6.0]
    """
    length = tokens.shape[-2]
    if (*cls_attention.shape[:-2], cls_attention.shape[-1]) != tokens.shape[:-1] or (
        metric.shape[:-1] != tokens.shape[:-1]
    ):
        takes = "tokens [..., n+1, d], attention of the class token [..., h, n+1], a metric [..., n+1, c]"
        raise misfit("visionzip", takes, tokens, cls_attention, metric)
    _check_counts(dominant, contextual, length)
    attention = cls_attention.sum(dim=-2)[..., 1:]
    norms = metric.norm(dim=-1, keepdim=True)
    require_finite("visionzip", cls_attention=attention, metric=norms)
    best = top_indices(attention, dominant - 1) + 1
    kept = torch.nn.functional.pad(best.sort(dim=-1).values, (1, 0), value=0)
    parts = [take_tokens(tokens, kept)]
    if contextual:
        rest = complement(kept, length)
        parts.append(_contextual(tokens, unit_rows(metric, norms), rest, contextual))
    return Reduced(
        tokens=torch.cat(parts, dim=-2),
        kept_indices=kept,
        selection_order=kept,
        cls_attention=attention,
    )


def _check_counts(dominant: int, contextual: int, length: int) -> None:
    if dominant < 1 or contextual < 0 or dominant + contextual > length:
        raise InvalidInputError(
            f"visionzip cannot make {dominant} dominant and {contextual} contextual tokens of "
            f"{length}; at least one is dominant, the class token where there is one"
        )


def _contextual(tokens: Tensor, unit: Tensor, rest: Tensor, count: int) -> Tensor:
    left = rest.shape[-1]
    step = max(1, left // count)
    places = torch.arange(0, left, step, device=rest.device)[:count]
    others = complement(places, left)
    target, joining = rest[..., places], rest[..., others]
    similarity = take_tokens(unit, joining) @ take_tokens(unit, target).transpose(-1, -2)
    share = torch.nn.functional.one_hot(similarity.argmax(dim=-1), len(places)).to(tokens.dtype)
    joined = share.transpose(-1, -2) @ take_tokens(tokens, joining)
    members = share.sum(dim=-2).unsqueeze(-1).clamp_min(1)
    return take_tokens(tokens, target) + joined / members


def zip_received(
    tokens: Tensor, received: Tensor, metric: Tensor, *, dominant: int, contextual: int
) -> Reduced:
    """Do the same where no class token looks at the others: what all of them look at is dominant.

    Args:
        tokens: [n, d] merged tokens of an image.
        received: [n] attention that each receives.
        metric: [n, c] mean over heads and patches of the keys.
        dominant: tokens kept as they are.
        contextual: merged tokens, each in the place of the one that the others join; 0 for none.

    Raises:
        InvalidInputError: more tokens than there are, NaN or infinity.

    >>> x = torch.tensor([[9.0], [1.0], [2.0]])
    >>> zip_received(x, torch.tensor([0.1, 0.6, 0.2]), torch.ones(3, 2), dominant=1, contextual=1).tokens
    tensor([[ 1.],
            [11.]])
    """
    n = len(tokens)
    _check_counts(dominant, contextual, n)
    norms = metric.norm(dim=-1, keepdim=True)
    require_finite("visionzip", attention=received, metric=norms)
    best = top_indices(received, dominant).sort().values
    parts, kept = [tokens[best]], [best]
    if contextual:
        rest = complement(best, n)
        parts.append(_contextual(tokens, unit_rows(metric, norms), rest, contextual))
        kept.append(rest[:: max(1, len(rest) // contextual)][:contextual])
    order = torch.cat(kept)
    return Reduced(tokens=torch.cat(parts), kept_indices=order, scores=received)


def _zip_merged(host: Host) -> None:
    """Keep and merge the tokens of every image behind the merger."""
    attention = ReceivedAttention(host)
    keep = host.method.settled_keep

    def zipped(item: Item) -> Reduced:
        received, metric = attention.of(item.number)
        dominant, contextual = split_keep(keep, len(item.tokens))
        return zip_received(item.tokens, received, metric, dominant=dominant, contextual=contextual)

    reduce_items(host, zipped)


def plug(host: Host) -> None:
    """Keep and merge the patches of every crop before the projector, or the tokens behind a merger.

    The output holds the class token itself. The projector is not given its feature, so it is taken from the
    tower.
    """
    parts, name, keep = host.parts, host.method.name, host.method.settled_keep
    if parts.three_axes:
        _zip_merged(host)
        return
    attention = ClassAttention(host)
    parts.require_one_layer(name)
    classes: list[Tensor] = []

    def saw_states(_module: Any, _args: Any, output: Any) -> None:
        states = output[0] if isinstance(output, tuple) else output
        classes[:] = [states[:, :1].clone()]

    for tower in parts.towers:
        host.patches.after(tower.layers[feature_depth(parts, tower) - 1], saw_states)

    def zipped(features: Tensor, tower: Tower) -> Reduced:
        row, metric = attention.take()
        require_patches(name, features, tower)
        dominant, contextual = split_keep(keep, features.shape[1])
        whole = torch.cat((classes.pop(), features), dim=1)
        result = visionzip(whole, row, metric, dominant=dominant, contextual=contextual)
        assert result.kept_indices is not None  # noqa: S101  (the dominant ones)
        # Records count patches: the class token, always first, is left out.
        return replace(result, kept_indices=result.kept_indices[:, 1:] - 1)

    reduce_crops(host, zipped, before_projector=True, includes_class_token=True)
