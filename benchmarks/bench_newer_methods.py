"""The newer methods beside loops over chunks, windows, frames, anchors, cells and tokens.

    python benchmarks/bench_newer_methods.py [--json]

As in `bench_token_reduction.py`: plain loops that follow the descriptions step by step, on the same
tensors, one CPU thread, in one run; both sides must keep the same tokens. On a CPU a loop over chunks or
frames that stay in its cache is as quick as one pass over all, so DyCoke takes its pairs of frames one by one
there; HoliTom's merge in turn, one product here, is quicker as a loop there. On an accelerator every step
of a loop is a handful of launches from the host and a read-back, so the number of dependent steps is printed
beside; ours have none but those of CDPruner's picks, half as many, and the scenes of FastVID and HoliTom,
which are read back once (`tests/token_reduction/test_no_read_back.py`). PixelPrune's program is a loop over
cells above threshold 0 alone; that loop, at 0, is what it is held against.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from typing import TYPE_CHECKING

import torch

from token_reduction.cdpruner import split_cdpruner
from token_reduction.dycoke import dycoke
from token_reduction.fastvid import fastvid
from token_reduction.hiprune import hiprune
from token_reduction.holitom import holitom, merge_in_turn
from token_reduction.holov import holov
from token_reduction.pixelprune import pixelprune
from token_reduction.vscan import vscan

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def loop_holov(tokens: Tensor, attention: Tensor, count: int, chunks: int) -> list[int]:
    """One chunk after the other."""
    parts = list(zip(tokens.chunk(chunks), attention.chunk(chunks), strict=True))
    weights = []
    for rows, looked in parts:
        unit = rows / (rows.norm(dim=1, keepdim=True) + 1e-6)
        cosine = unit @ unit.T * (1 - torch.eye(len(rows)))
        mean = cosine.sum(dim=1, keepdim=True) / (len(rows) - 1)
        varied = (cosine - mean).square().sum(dim=1) / (len(rows) - 1)
        scaled = looked * 1e3
        weights.append((scaled + 0.09 * varied * scaled.mean() / (varied.mean() + 1e-6)).mean())
    shares = torch.stack(weights)
    shares = shares / (shares.sum() + 1e-6)
    quotas = (shares * count).floor().long()
    for place in shares.argsort(descending=True, stable=True)[: count - int(quotas.sum())]:
        quotas[place] += 1
    kept, start = [], 0
    for (rows, looked), quota in zip(parts, quotas.tolist(), strict=True):
        kept += (looked.argsort(descending=True, stable=True)[:quota] + start).tolist()
        start += len(rows)
    return kept


def loop_dycoke(clip: Tensor, keep: float) -> list[int]:
    """One pair of frames after the other."""
    frames, each, _ = clip.shape
    count = int(keep * each)
    pairs = [(i, i + 1) for i in range(0, frames - 1, 2)]
    pairs += [(i, i + 2) for i in range(0, frames - 4, 4)]
    kept = {t: list(range(each)) for t in range(frames)}
    for one, other in pairs:
        cosine = torch.nn.functional.cosine_similarity(clip[one], clip[other], dim=-1)
        kept[other] = sorted(cosine.argsort(stable=True)[:count].tolist())
    return [t * each + p for t in range(frames) for p in kept[t]]


def loop_hiprune(shallow: Tensor, deep: Tensor, count: int, side: int) -> list[int]:
    """One anchor after the other, then one register after the other."""
    n = len(shallow)
    chosen: list[int] = []
    for anchor in shallow.argsort(descending=True, stable=True)[: round(count * 0.1 / 5)].tolist():
        for step in (0, -1, 1, -side, side):
            place = min(max(anchor + step, 0), n - 1)
            if place not in chosen:
                chosen.append(place)
    for place in deep.argsort(descending=True, stable=True).tolist():
        if len(chosen) == count:
            break
        if place not in chosen:
            chosen.append(place)
    return sorted(chosen)


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
        kernel = relevance[:, None] * (unit @ unit.T) * relevance[None, :]
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


def moving_clip(made: torch.Generator) -> Tensor:
    """32 frames of 196 tokens in four scenes, half of whose places stand still."""
    clip = torch.randn(32, 196, 3584, generator=made)
    for start in range(0, 32, 8):
        base = torch.randn(98, 3584, generator=made)
        clip[start : start + 8, :98] = base + 0.1 * clip[start : start + 8, :98]
    return clip


def newest(
    made: torch.Generator,
) -> dict[str, tuple[Callable[[], object], Callable[[], object], int]]:
    """The cases of VScan, FastVID, HoliTom, PixelPrune and CDPruner in halves."""
    tokens = torch.randn(576, 4096, generator=made)
    shallow, deep = torch.rand(2, 1, 576, generator=made)
    clip = moving_clip(made)
    # Four scenes, cut in two each.
    features = torch.randn(4, 1, 1152, generator=made).expand(4, 8, 1152).reshape(32, 1152)
    features = features + 0.1 * torch.randn(32, 1152, generator=made)
    attention = torch.rand(32, 196, generator=made)
    states, row = torch.randn(960, 3584, generator=made), torch.rand(1, 960, generator=made)
    values = torch.randint(2, (36, 64, 1), generator=made).float()
    cells = values.expand(-1, -1, 1176).contiguous()
    texts = torch.randn(30, 4096, generator=made)
    assert pixelprune(cells).tolist() == loop_pixelprune(cells)
    assert split_cdpruner(tokens, texts, 64).kept_indices.tolist() == loop_split(tokens, texts, 64)
    pairs = [
        ("vscan n=576 K=96", lambda: loop_vscan(tokens, shallow[0], deep[0], 96, 24),
         lambda: vscan(tokens, shallow, deep, 96, side=24).tokens, 16 + 480),
        ("fastvid 32 x 196 d=3584", lambda: loop_fastvid(clip, features, attention),
         lambda: fastvid(clip, features, attention).tokens, 32 + 32 * 7),
        ("holitom 32 x 196 d=3584", lambda: loop_holitom(clip, attention),
         lambda: holitom(clip, attention).tokens, 32 * 31 // 2 + 32),
        ("holitom 960 -> 480", lambda: loop_merge(states, row[0], 480),
         lambda: merge_in_turn(states, row, 480).tokens, 480),
    ]  # fmt: skip
    for _, loop, ours, _ in pairs:
        torch.testing.assert_close(ours(), loop(), rtol=1e-3, atol=1e-3)
    return {
        **{name: (loop, ours, steps) for name, loop, ours, steps in pairs},
        "pixelprune 36 x 64 cells": (lambda: loop_pixelprune(cells), lambda: pixelprune(cells), 2304),
        "cdpruner split n=576 K=64": (
            lambda: tokens[loop_split(tokens, texts, 64)],
            lambda: split_cdpruner(tokens, texts, 64),
            64,
        ),
    }  # fmt: skip


def cases() -> dict[str, tuple[Callable[[], object], Callable[[], object], int]]:
    """Name -> loop, ours, dependent steps of the loop."""
    made = torch.Generator().manual_seed(0)
    tokens = torch.randn(576, 4096, generator=made)
    row = torch.randn(1, 576, generator=made).softmax(dim=-1)
    assert holov(tokens, row, 64).kept_indices.tolist() == loop_holov(tokens, row[0], 64, 16)
    clip = torch.randn(32, 196, 3584, generator=made)
    assert dycoke(clip).kept_indices.tolist() == loop_dycoke(clip, 0.3)
    shallow, deep = torch.rand(2, 576, generator=made)
    ours = hiprune(tokens, shallow, deep, 192, side=24)
    assert ours.kept_indices.tolist() == loop_hiprune(shallow, deep, 192, 24)
    return {
        "holov n=576 d=4096": (
            lambda: tokens[loop_holov(tokens, row[0], 64, 16)],
            lambda: holov(tokens, row, 64),
            32,
        ),
        "dycoke 32 x 196 d=3584": (
            lambda: clip.reshape(-1, 3584)[loop_dycoke(clip, 0.3)],
            lambda: dycoke(clip),
            23,
        ),
        "hiprune n=576 K=192": (
            lambda: tokens[loop_hiprune(shallow, deep, 192, 24)],
            lambda: hiprune(tokens, shallow, deep, 192, side=24),
            192,
        ),
        **newest(made),
    }


def median_s(call: Callable[[], object], seconds: float) -> float:
    """Median time of a call, repeated for so long."""
    samples = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        call()
        samples.append(time.perf_counter() - begin)
    return statistics.median(samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--seconds", type=float, default=1.0, help="time per side of a case")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, (loop, ours, steps) in cases().items():
        loop_s, ours_s = median_s(loop, given.seconds), median_s(ours, given.seconds)
        rows.append({"case": name, "loop_s": loop_s, "ours_s": ours_s, "ratio": loop_s / ours_s,
                     "loop_steps": steps})  # fmt: skip
    if given.json:
        print(json.dumps({"torch": torch.__version__, "threads": 1, "cases": rows}, indent=1))
        return
    for row in rows:
        print(
            f"{row['case']:26} loop {row['loop_s'] * 1e3:8.3f} ms ({row['loop_steps']} steps)   "
            f"ours {row['ours_s'] * 1e3:8.3f} ms   {row['ratio']:5.2f}x"
        )


if __name__ == "__main__":
    main()
