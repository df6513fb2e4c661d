"""HoliTom: what stands still in a scene becomes one frame's, each frame is thinned out, and half goes later.

Source: "HoliTom: Holistic Token Merging for Fast Video Large Language Models" (Shao et al., NeurIPS 2025,
arXiv 2505.21334) and its program cokeshao/HoliTom.
Place: after the projector, on clips, and at the entry of layer 18 of 28 of the language model in a forward
that brings a clip; images and clips of one frame are left alone. Needs how much the tower looks at each
token: the mean of all heads and queries of its last layer, behind which LLaVA-OneVision's features are
pooled, or of a tower of native resolution (Qwen's). The language model's row is recomputed as FastV's is.
Tokens keep their places on three axes; a mean stands where its scene's first frame had the token.

Complexity, t frames of p tokens, d width: t*p*d for the likeness of neighbours, t^2 on the host for the
scenes, and s^2*d for s positions that stand still in a scene. What stands still decides the lengths, so it
is read back once; the loop is over scenes. Inside the language model g*k*d, without a loop: the program's
takes the g tokens that go one after the other, each halving the sum it joins, so the j-th of m that join
counts 2^-(m - j + 1) and the one that stays 2^-m. These weights are the merge.

Program and paper: the program's D, the share of moving tokens that are clustered, is 0; so is it here. Its
line about NO_BETA prints 1 and means 0: a centre counts `own`, the mean of the others the rest. Of several
clips each later one starts there with the share the last one came to; here with what is asked. Means stand
in spatial order, as in the program with newlines; without, it has them in front of the frame. Densities
that are equal keep their order (the program adds noise), and a scene that stands still keeps one token.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from costmodel.methods.holitom import (
    CUT,
    DEEP,
    LONGEST,
    NEIGHBOURS,
    OWN,
    RATIO,
    THRESHOLD,
    cut_layer,
    share_left,
)
from costmodel.methods.keep import check_keep, resolve_keep
from hardware_specs.errors import InvalidInputError
from token_reduction.apply.class_attention import MeanAttention, pooled_frames
from token_reduction.apply.inside_llm import Policy
from token_reduction.apply.llm_attention import AttentionProbe
from token_reduction.apply.llm_policy import rows_of
from token_reduction.apply.places import Host, reduce_between_layers
from token_reduction.apply.received_attention import reduce_weighed_clips
from token_reduction.tokens.checks import misfit, require_finite
from token_reduction.tokens.density import distances, scores_of
from token_reduction.tokens.reduced import Reduced
from token_reduction.tokens.selection import (
    complement,
    frame_cosines,
    take_tokens,
    top_indices,
    unit_rows,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from token_reduction.apply.anatomy import Parts
    from token_reduction.apply.crops import Item
    from token_reduction.apply.inside_llm import LayerReduction, Prefill


def holitom(
    frames: Tensor,
    attention: Tensor,
    keep: float = RATIO,
    *,
    threshold: float = THRESHOLD.default,
    own: float = OWN.default,
) -> Reduced:
    """Average what stands still over its scene, and thin out the rest.

    Formula: a position stands still in a scene where its cosine to the next frame is above `threshold` all
    through it; scenes are cut so that the sum of still positions x (frames - 1) is the largest. With R of
    the t p tokens saved so, a share q = min(1, keep t p / (t p - R)) stays: ceil(q x) of a frame's x moving
    tokens, those with the largest attention, and round(q s) of a scene's s means, by density peaks; each
    other mean joins its nearest centre, own x centre + (1 - own) x the mean of the others.

    Args:
        frames: [t, p, d] tokens of t frames.
        attention: [t, p] how much each token is looked at.
        keep: share of the clip's tokens.
        threshold: cosine to the next frame above which a token stands still.
        own: weight of a centre itself.

    Returns:
        Reduced of the t * p tokens; kept_indices ascending, means at their places in the scene's first frame.

    Raises:
        InvalidInputError: shapes that do not fit, NaN or infinity, a keep out of range.

    >>> clip = torch.tensor([[[1.0, 0.0], [2.0, 0.0]], [[1.0, 0.0], [0.0, 2.0]]])
    >>> out = holitom(clip, torch.tensor([[0.9, 0.1], [0.2, 0.8]]), 0.5)  # the first token stands still
    >>> out.kept_indices.tolist(), holitom(clip, torch.zeros(2, 2), 0.5, threshold=1.0).kept_indices.tolist()
    ([0, 1, 3], [0, 2])
    """
    if frames.ndim != 3 or attention.shape != frames.shape[:2] or not attention.numel():
        takes = "the tokens of frames [t, p, d] and the attention [t, p] to them"
        raise misfit("holitom", takes, frames, attention)
    count, each, width = frames.shape
    if isinstance(check_keep(keep), int):
        raise InvalidInputError(
            f"holitom's keep is a share in (0, 1] of a clip; given the count {keep}"
        )
    with torch.no_grad():
        norms = frames.norm(dim=-1, keepdim=True)
        require_finite("holitom", frames=norms, attention=attention)
        broken = _last_break(frames, norms, threshold)
        scenes, saved = _scenes(_still_counts(broken))
        part = share_left(keep, saved, count * each)
        starts = torch.tensor([start for start, _, _ in scenes], device=frames.device)
        ends = torch.tensor([end for _, end, _ in scenes], device=frames.device)
        still = (broken[ends] < starts.unsqueeze(-1)) & (ends > starts).unsqueeze(-1)
        lengths = ends - starts + 1
        # Above every score behind a token that stands still: those come last in their frame.
        moving = attention.masked_fill(still.repeat_interleave(lengths, dim=0, output_size=count),
                                       -torch.inf)  # fmt: skip
        order = moving.sort(dim=-1, descending=True, stable=True).indices
        stay = [
            math.ceil((each - s) * part) for start, end, s in scenes for _ in range(start, end + 1)
        ]
        ranks = np.flatnonzero(np.arange(each) < np.array(stay)[:, None])
        first = torch.arange(0, count * each, each, device=frames.device).unsqueeze(-1)
        places = [(order + first).flatten()[torch.from_numpy(ranks).to(frames.device)]]
        tokens = [frames.reshape(-1, width)[places[0]]]
        for number, (start, end, s) in enumerate(scenes):
            # Where all of a scene stands still, something of it stays.
            centres = max(round(s * part), int(s == each))
            if s and centres:
                here = still[number].to(torch.uint8).sort(descending=True, stable=True).indices[:s]
                means = frames[start : end + 1, here].mean(dim=0)
                chosen, joined = _centres(means, centres, own)
                places.append(here[chosen] + start * each)
                tokens.append(joined)
        kept = torch.cat(places)
        order = kept.argsort()
    return Reduced(torch.cat(tokens)[order], kept_indices=kept[order], scores=attention.flatten())


def _last_break(frames: Tensor, norms: Tensor, threshold: float) -> Tensor:
    """Return, [t, p], the last frame before each whose token there was not like the next one, or -1."""
    lengths = norms.clamp_min(torch.finfo(frames.dtype).tiny)
    like = frame_cosines(frames, lengths, slice(1, None), slice(len(frames) - 1)) > threshold
    numbers = torch.arange(len(like), device=frames.device).unsqueeze(-1)
    broken = torch.cat((numbers.new_full((1, frames.shape[1]), -1), torch.where(like, -1, numbers)))
    return broken.cummax(dim=0).values


def _still_counts(broken: Tensor) -> list[list[int]]:
    """How many positions stand still from frame i to frame j, at [j][i]; read back at once."""
    count = len(broken)
    by_break = torch.zeros(count, count + 1, dtype=torch.long, device=broken.device)
    by_break = by_break.scatter_add(1, broken + 1, torch.ones_like(broken))
    found: list[list[int]] = by_break.cumsum(dim=1)[:, :count].tolist()
    return found


def _scenes(still: list[list[int]]) -> tuple[list[tuple[int, int, int]], int]:
    """Cut a clip: first and last frame of each scene and its still positions, and the tokens saved.

    The shortest of scenes that save as much ends a clip, as in the program.
    """
    best, begin = [0], []
    for last in range(len(still)):
        firsts = range(last, max(-1, last - LONGEST), -1)
        saved = [
            best[first] + (last - first) * (first < last) * still[last][first] for first in firsts
        ]
        most = max(saved)
        best.append(most)
        begin.append(last - saved.index(most))
    scenes, last = [], len(still) - 1
    while last >= 0:
        first = begin[last]
        scenes.append((first, last, still[last][first] if first < last else 0))
        last = first - 1
    return scenes[::-1], best[-1]


def _centres(means: Tensor, count: int, own: float) -> tuple[Tensor, Tensor]:
    """Which of means [s, d] are centres, [m] ascending, and centres with what joins them, [m, d]."""
    apart = distances(means)
    chosen = top_indices(scores_of(apart, min(NEIGHBOURS, count)), count).sort().values
    others = complement(chosen, len(means))
    centres = means[chosen]
    nearest = apart[others][:, chosen].argmin(dim=-1)
    share = torch.nn.functional.one_hot(nearest, count).to(means.dtype)
    joined = share.sum(dim=0).unsqueeze(-1)
    mixed = own * centres + (1 - own) * (share.T @ means[others]) / joined.clamp_min(1)
    return chosen, torch.where(joined > 0, mixed, centres)


def merge_in_turn(states: Tensor, attention: Tensor, keep: float = DEEP.default) -> Reduced:
    """Average each token that goes into its most similar kept one, one after the other.

    Formula: the round(keep n) tokens with the largest attention stay. The others, in their order, are each
    added to the kept one with the largest cosine, as it was at first, and the sum is halved.

    Args:
        states: [..., n, d] what enters a layer, of the visual tokens.
        attention: [..., h, n] the last token's row one layer earlier.
        keep: a count, or a ratio rounded to nearest.

    Raises:
        InvalidInputError: shapes that do not fit, NaN or infinity, a keep out of range.

    >>> x, row = torch.tensor([[8.0], [1.0], [2.0]]), torch.tensor([[0.9, 0.1, 0.2]])
    >>> merge_in_turn(x, row, 1).tokens.tolist()  # ((8 + 1) / 2 + 2) / 2
    [[3.25]]
    """
    if states.ndim < 2 or (*attention.shape[:-2], attention.shape[-1]) != states.shape[:-1]:
        raise misfit("holitom", "states [..., n, d] and attention [..., h, n]", states, attention)
    n = states.shape[-2]
    with torch.no_grad():
        score = attention.mean(dim=-2)
        norms = states.norm(dim=-1, keepdim=True)
        require_finite("holitom", attention=score, states=norms)
        picks = top_indices(score, resolve_keep(keep, n))
        kept, gone = picks.sort(dim=-1), complement(picks, n)
        centres, others = take_tokens(states, picks), take_tokens(states, gone)
        # How long a token that goes is has no part in which kept one is most similar to it.
        cosine = others @ unit_rows(centres).transpose(-1, -2)
        joins = torch.nn.functional.one_hot(cosine.argmax(dim=-1), picks.shape[-1])
        # For each that goes, how many join the same one from it on.
        to_come = joins.flip(-2).cumsum(dim=-2).flip(-2)
        weights = joins * torch.exp2(-to_come.float())
        own = torch.exp2(-joins.sum(dim=-2).float()).unsqueeze(-1)
        mixed = weights.to(states.dtype).transpose(-1, -2) @ others
        centres = own.to(states.dtype) * centres + mixed
    return Reduced(
        take_tokens(centres, kept.indices), kept_indices=kept.values, selection_order=picks,
        scores=score,
    )  # fmt: skip


def plug(host: Host) -> None:
    """Reduce each clip behind the projector, and merge once more inside the language model."""
    method, parts = host.method, host.parts
    settings = {"threshold": THRESHOLD.of(method), "own": OWN.of(method)}
    keep, cut = float(method.settled_keep), cut_layer(len(parts.layers), CUT.of(method))
    before, inside = host.in_two() if cut else (host, None)
    later: MergedInTurn | None = None
    if cut:
        parts.require_decoder_layers(method.name)
        later = MergedInTurn(parts, cut, DEEP.of(method))

    def thinned(item: Item, looked: Tensor) -> Reduced:
        if later is not None:
            later.active = True
        return holitom(item.by_frame, looked, keep, **settings)

    def pooled() -> Callable[[Item], Reduced]:
        layer, side = parts.feature_layer, parts.towers[0].side
        depth = layer if isinstance(layer, int) else layer[-1]
        mean = MeanAttention(host, depth, class_token=False)
        looked: list[Tensor] = []

        def of_pooled(item: Item) -> Reduced:
            if not item.number:
                looked[:] = torch.split(mean.take(), item.frames)
            return thinned(item, pooled_frames(looked[item.number], side))

        return of_pooled

    reduce_weighed_clips(before, thinned, pooled)
    if inside is not None and later is not None:
        reduce_between_layers(inside, lambda *_: later)


class MergedInTurn(Policy):
    """HoliTom's second stage, in a forward that brings a clip.

    Args:
        parts: the model.
        layer: at whose entry it merges.
        keep: share of the visual tokens that stays.
    """

    def __init__(self, parts: Parts, layer: int, keep: float) -> None:
        self._layer, self._keep = layer, keep
        self._probe = AttentionProbe(parts, layer - 1)
        self.probes = (self._probe,)
        #: Whether the running forward brings a clip.
        self.active = False

    def begin(self, now: Prefill) -> None:
        """Watch this forward if it brings a clip."""
        if self.active:
            super().begin(now)
            self._probe.wanted = now.last_places

    def forget(self) -> None:
        """Forget the clip, too."""
        super().forget()
        self.active = False

    def cuts_at(self, layer: int) -> bool:
        """At its one layer."""
        return self.active and layer == self._layer

    def enter(self, layer: int, now: Prefill, hidden: Tensor, cutter: LayerReduction) -> Tensor:
        """Merge, group by group, and drop what went."""
        if not self.cuts_at(layer):
            return hidden
        rows, chosen = self._probe.rows(), []
        self._probe.forget()
        for group in now.tokens.groups:
            if not group.places.shape[1]:
                chosen.append(group.places)
                continue
            local = now.tokens.local(group)
            states = take_tokens(rows_of(hidden, group, now.tokens), local)
            seen = rows_of(rows, group, now.tokens).take_along_dim(local.unsqueeze(1), dim=-1)
            merged = merge_in_turn(states, seen, self._keep)
            kept = merged.kept_indices
            assert kept is not None  # noqa: S101  (it selects)
            chosen.append(kept)
            places = local.gather(1, kept)
            members = torch.tensor(group.rows, device=hidden.device).unsqueeze(-1)
            hidden = hidden.index_put((members, places), merged.tokens)
        (hidden,) = cutter.narrow(now, chosen, hidden)
        return hidden
