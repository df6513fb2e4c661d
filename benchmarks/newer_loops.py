"""Loops over windows, scenes, frames, cells and tokens: VScan, FastVID, HoliTom, PixelPrune, CDPruner in
halves, EVS, VidCom2, DART on embeddings.

`bench_token_reduction.py` runs them. PixelPrune's program is a loop over cells above threshold 0 alone; that
loop, at 0, is what it is held against.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from token_reduction.cdpruner import split_cdpruner
from token_reduction.dart import dart_of_embeddings
from token_reduction.evs import evs
from token_reduction.fastvid import fastvid
from token_reduction.holitom import holitom, merge_in_turn
from token_reduction.pixelprune import pixelprune
from token_reduction.vidcom2 import vidcom2
from token_reduction.vscan import vscan

if TYPE_CHECKING:
    from torch import Tensor

Pair = tuple[Callable[[], object], Callable[[], object]]


def loop_vscan(tokens: Tensor, shallow: Tensor, deep: Tensor, count: int, side: int) -> Tensor:
    """One window after the other, then one merged token after the other."""
    n, window = len(tokens), 6
    grid = torch.arange(n).view(side, side)
    chosen = []
    for top in range(0, side, window):
        for left in range(0, side, window):
            inside = grid[top : top + window, left : left + window].flatten()
            order = shallow[inside].argsort(descending=True, stable=True)
            chosen.append(inside[order[: count // 2 // (side // window) ** 2]])
    local = torch.cat(chosen)
    late = deep.clone()
    late[local] = 0
    kept = torch.cat((local, late.argsort(descending=True, stable=True)[: count - count // 2]))
    kept = kept.sort().values
    unit = torch.nn.functional.normalize(tokens, dim=-1)
    out, sizes = tokens[kept].clone(), torch.ones(len(kept))
    for place in sorted(set(range(n)) - set(kept.tolist())):
        nearest = int((unit[kept] @ unit[place]).argmax())
        out[nearest] += tokens[place]
        sizes[nearest] += 1
    return out / sizes.unsqueeze(-1)


def loop_peaks(tokens: Tensor, count: int, neighbours: int) -> tuple[Tensor, Tensor]:
    """Centres of density peaks, ascending, and the distances."""
    apart = torch.cdist(tokens, tokens) / tokens.shape[-1] ** 0.5
    density = (-apart.topk(neighbours, largest=False).values.square().mean(dim=-1)).exp()
    denser = density[None, :] > density[:, None]
    gap = torch.where(denser, apart, apart.max()).amin(dim=-1)
    score = gap * density
    return score.argsort(descending=True, stable=True)[:count].sort().values, apart


def loop_fastvid(clip: Tensor, features: Tensor, attention: Tensor) -> Tensor:
    """One scene, frame and anchor after the other, at the published setting."""
    frames, each, _ = clip.shape
    unit = torch.nn.functional.normalize(features, dim=-1)
    alike = (unit[1:] * unit[:-1]).sum(dim=-1)
    ends = set(alike.argsort(stable=True)[:7].tolist())
    ends |= {t for t in range(frames - 1) if alike[t] < 0.9}
    out = {}
    free = {}
    for t in range(frames):
        best = attention[t].argsort(descending=True, stable=True)[:12].tolist()
        out |= {(t, p): clip[t, p] for p in best}
        free[t] = [p for p in range(each) if p not in best]
    start = 0
    for end in [*sorted(ends), frames - 1]:
        scene = list(range(start, end + 1))
        chosen = scene[::-1][::4]
        anchors = []
        for t in chosen:
            picks, _ = loop_peaks(clip[t, free[t]], 7 * len(scene) // len(chosen), 4)
            anchors += [(t, free[t][int(pick)]) for pick in picks]
        joins = torch.cat([clip[t, free[t]] for t in scene])
        rows = torch.stack([clip[place] for place in anchors])
        cosine = torch.nn.functional.normalize(joins, dim=-1) @ (
            torch.nn.functional.normalize(rows, dim=-1).T
        )
        nearest = cosine.argmax(dim=-1)
        for number, place in enumerate(anchors):
            members = joins[nearest == number]
            weight = max(1 / (len(members) + 1), 0.6)
            out[place] = weight * clip[place] + (1 - weight) * members.mean(dim=0)
        start = end + 1
    return torch.stack([out[place] for place in sorted(out)])


def loop_holitom(clip: Tensor, attention: Tensor) -> Tensor:
    """One scene, frame and centre after the other, at the published setting."""
    frames, each, _ = clip.shape
    like = torch.nn.functional.cosine_similarity(clip[1:], clip[:-1], dim=-1) > 0.8
    best, begin = [0.0], []
    for last in range(frames):
        most, first = best[last], last
        for start in range(last - 1, -1, -1):
            saved = best[start] + float(like[start:last].all(dim=0).sum()) * (last - start)
            if saved > most:
                most, first = saved, start
        best.append(most)
        begin.append(first)
    scenes, last = [], frames - 1
    while last >= 0:
        scenes.insert(0, (begin[last], last))
        last = begin[last] - 1
    part = min(0.15 / ((frames * each - best[-1]) / (frames * each)), 1)
    out = {}
    for first, last in scenes:
        still = like[first:last].all(dim=0) if first < last else torch.zeros(each, dtype=torch.bool)
        moving = (~still).nonzero().flatten()
        for t in range(first, last + 1):
            order = attention[t, moving].argsort(descending=True, stable=True)
            out |= {(t, int(p)): clip[t, p] for p in moving[order[: math.ceil(len(moving) * part)]]}
        count = round(int(still.sum()) * part)
        if not count:
            continue
        places = still.nonzero().flatten()
        means = clip[first : last + 1, places].mean(dim=0)
        centres, apart = loop_peaks(means, count, min(7, count))
        others = torch.tensor([i for i in range(len(means)) if i not in centres.tolist()])
        nearest = apart[others][:, centres].argmin(dim=-1) if len(others) else others
        for number, centre in enumerate(centres.tolist()):
            members = means[others[nearest == number]] if len(others) else means[:0]
            mixed = means[centre]
            if len(members):
                mixed = 0.6 * mixed + 0.4 * members.mean(dim=0)
            out[first, int(places[centre])] = mixed
    return torch.stack([out[place] for place in sorted(out)])


def loop_merge(states: Tensor, row: Tensor, count: int) -> Tensor:
    """One token that goes after the other, as the program does."""
    order = row.argsort(descending=True, stable=True)
    kept, gone = order[:count], order[count:].sort().values
    unit = torch.nn.functional.normalize(states, dim=-1)
    nearest = kept[(unit[gone] @ unit[kept].T).argmax(dim=-1)]
    out = states.clone()
    for place, joins in zip(gone, nearest, strict=True):
        out[joins] = (out[joins] + out[place]) / 2
    return out[kept.sort().values]


def loop_pixelprune(cells: Tensor) -> list[list[bool]]:
    """One cell after the other."""
    high, wide, _ = cells.shape
    stay = []
    for y in range(high):
        stay.append([])
        for x in range(wide):
            if not (x or y):
                stay[-1].append(True)
                continue
            guess = cells[y, x - 1] if x else cells[y - 1, x]
            if x and y:
                left, above, corner = cells[y, x - 1], cells[y - 1, x], cells[y - 1, x - 1]
                if torch.equal(corner, left) and not torch.equal(corner, above):
                    guess = above
            stay[-1].append(not torch.equal(cells[y, x], guess))
    return stay


def loop_split(tokens: Tensor, texts: Tensor, count: int) -> list[int]:
    """One half after the other, one pick after the other."""
    kept, half = [], len(tokens) // 2
    text = torch.nn.functional.normalize(texts, dim=-1)
    for start in (0, half):
        unit = torch.nn.functional.normalize(tokens[start : start + half], dim=-1)
        mean = (unit @ text.T).mean(dim=-1)
        relevance = (mean - mean.min()) / (mean.max() - mean.min() + 1e-6)
        kernel = (0.5 + 0.5 * relevance[:, None] * relevance[None, :]) * (unit @ unit.T)
        variance, rows, picks = kernel.diagonal().clone(), torch.zeros(count // 2, half), []
        for number in range(count // 2):
            pick = int(variance.argmax())
            row = kernel[pick] - rows[:number, pick] @ rows[:number]
            rows[number] = row / variance[pick].sqrt()
            variance = variance - rows[number].square()
            variance[pick] = -torch.inf
            picks.append(pick + start)
        kept += picks
    return sorted(kept)


def loop_evs(clip: Tensor, keep: float) -> list[int]:
    """One frame after the other, against the one before."""
    each = clip.shape[1]
    scores = [torch.full((each,), 255.0)]
    for before, frame in pairwise(clip):
        scores.append(1 - torch.nn.functional.cosine_similarity(frame, before, dim=-1))
    order = torch.cat(scores).argsort(descending=True, stable=True)
    kept: list[int] = order[: max(each, int(keep * len(order)))].sort().values.tolist()
    return kept


def loop_vidcom2(clip: Tensor, keep: float) -> list[int]:
    """One width of a kernel after the other, then one frame after the other, then what is over or missing."""
    frames, each, width = clip.shape
    flat = clip.reshape(-1, width)
    quiet = flat.var(dim=0, correction=0).argsort(stable=True)[: width // 2]
    unit = torch.nn.functional.normalize(clip[..., quiet], dim=-1)

    def near(centre: Tensor) -> Tensor:
        apart, found = (unit - centre).square().sum(dim=-1), torch.zeros(frames, each)
        for wide in (1 / 8, 1 / 4, 1 / 2, 1, 2):
            found += torch.exp(-apart / (2 * wide))
        return found

    whole = near(unit.mean(dim=(0, 1)))
    scores = whole + near(unit.mean(dim=1, keepdim=True))
    weights = (-whole.mean(dim=1) / 0.01).softmax(dim=0)
    kept: list[int] = []
    for number in range(frames):
        share = min(1.0, keep * float(1 + weights[number] - weights.mean()))
        count = min(max(round(share * each), 1), each)
        best = scores[number].argsort(stable=True)[:count] + number * each
        kept += best.tolist()
    order, total = (
        scores.flatten().argsort(stable=True).tolist(),
        max(frames, int(keep * len(flat))),
    )
    inside = set(kept)
    ranked = [place for place in order if place in inside] + [p for p in order if p not in inside]
    return sorted(ranked[:total])


def loop_dart(states: Tensor, start: int, count: int, keep: float) -> list[int]:
    """One pivot after the other over lists on the host, as the engine has it."""
    norms = states.abs().sum(dim=-1).tolist()
    image = list(range(start, start + count))
    text = [place for place in range(len(states)) if place not in set(image)]
    own = sorted(image, key=lambda place: -norms[place])[:4]
    pivots = own + sorted(text, key=lambda place: -norms[place])[:4]
    unit = torch.nn.functional.normalize(states, dim=-1)
    cosines = (unit[pivots] @ unit.T).tolist()
    kept, target = list(own), math.ceil(keep * count)
    for turn, row in enumerate(cosines):
        taken = set(kept)
        left = sorted((place for place in image if place not in taken), key=row.__getitem__)
        kept += left[: math.ceil((target - len(kept)) / (len(pivots) - turn))]
    return sorted(kept)


def moving_clip(made: torch.Generator) -> Tensor:
    """32 frames of 196 tokens in four scenes, half of whose places stand still."""
    clip = torch.randn(32, 196, 3584, generator=made)
    for start in range(0, 32, 8):
        base = torch.randn(98, 3584, generator=made)
        clip[start : start + 8, :98] = base + 0.1 * clip[start : start + 8, :98]
    return clip


def alike(loop: Callable[[], Tensor], ours: Callable[[], Tensor]) -> Pair:
    """A pair whose sides were compared."""
    torch.testing.assert_close(ours(), loop(), rtol=1e-3, atol=1e-3)
    return loop, ours


def vscan_case() -> Pair:
    made = torch.Generator().manual_seed(0)
    tokens = torch.randn(576, 4096, generator=made)
    shallow, deep = torch.rand(2, 1, 576, generator=made)
    return alike(
        lambda: loop_vscan(tokens, shallow[0], deep[0], 96, 24),
        lambda: vscan(tokens, shallow, deep, 96, side=24).tokens,
    )


def fastvid_case() -> Pair:
    made = torch.Generator().manual_seed(0)
    clip, attention = moving_clip(made), torch.rand(32, 196, generator=made)
    # Four scenes, cut in two each.
    features = torch.randn(4, 1, 1152, generator=made).expand(4, 8, 1152).reshape(32, 1152)
    features = features + 0.1 * torch.randn(32, 1152, generator=made)
    return alike(
        lambda: loop_fastvid(clip, features, attention),
        lambda: fastvid(clip, features, attention).tokens,
    )


def holitom_case() -> Pair:
    made = torch.Generator().manual_seed(0)
    clip, attention = moving_clip(made), torch.rand(32, 196, generator=made)
    return alike(lambda: loop_holitom(clip, attention), lambda: holitom(clip, attention).tokens)


def merge_case() -> Pair:
    made = torch.Generator().manual_seed(0)
    states, row = torch.randn(960, 3584, generator=made), torch.rand(1, 960, generator=made)
    return alike(
        lambda: loop_merge(states, row[0], 480), lambda: merge_in_turn(states, row, 480).tokens
    )


def pixelprune_case() -> Pair:
    values = torch.randint(2, (36, 64, 1), generator=torch.Generator().manual_seed(0)).float()
    cells = values.expand(-1, -1, 1176).contiguous()
    assert pixelprune(cells).tolist() == loop_pixelprune(cells)
    return lambda: loop_pixelprune(cells), lambda: pixelprune(cells)


def split_case() -> Pair:
    made = torch.Generator().manual_seed(0)
    tokens, texts = torch.randn(576, 4096, generator=made), torch.randn(30, 4096, generator=made)
    assert split_cdpruner(tokens, texts, 64).kept_indices.tolist() == loop_split(tokens, texts, 64)
    return lambda: tokens[loop_split(tokens, texts, 64)], lambda: split_cdpruner(tokens, texts, 64)


def evs_case() -> Pair:
    clip = moving_clip(torch.Generator().manual_seed(0))
    assert evs(clip).kept_indices.tolist() == loop_evs(clip, 0.3)
    return lambda: clip.reshape(-1, 3584)[loop_evs(clip, 0.3)], lambda: evs(clip)


def vidcom2_case() -> Pair:
    clip = moving_clip(torch.Generator().manual_seed(0))
    assert vidcom2(clip).kept_indices.tolist() == loop_vidcom2(clip, 0.25)
    return lambda: clip.reshape(-1, 3584)[loop_vidcom2(clip, 0.25)], lambda: vidcom2(clip)


def dart_case() -> Pair:
    states = torch.randn(1995, 2560, generator=torch.Generator().manual_seed(0))

    def ours() -> Tensor:
        found: Tensor = dart_of_embeddings(states, 0.75, spans=[(5, 1980)]).kept_indices
        return found

    assert [place for place in ours().tolist() if 5 <= place < 1985] == loop_dart(
        states, 5, 1980, 0.75
    )
    return lambda: loop_dart(states, 5, 1980, 0.75), ours


NEWER_CASES: dict[str, Callable[[], Pair]] = {
    "vscan n=576 K=96": vscan_case,
    "fastvid 32 x 196 d=3584": fastvid_case,
    "holitom 32 x 196 d=3584": holitom_case,
    "holitom in turn 960 to 480": merge_case,
    "pixelprune 36 x 64 cells": pixelprune_case,
    "cdpruner split n=576 K=64": split_case,
    "evs 32 x 196 d=3584": evs_case,
    "vidcom2 32 x 196 d=3584": vidcom2_case,
    "dart embeddings n=1980": dart_case,
}
