"""How much the vectorised methods gain over a plain transcription of the published loops.

    python benchmarks/bench_token_reduction.py [--strict]

Baselines live here and nowhere else: they follow the loops of the methods' programs step by step
(PruMerge walks over images and kept tokens in Python; DivPrune takes the minimum over all picks
anew at every pick), on the same tensors, one CPU thread, in one run. Both sides must pick the same
tokens, or the run fails. They take turns, and the ratio is that of the medians.

"selection" is the greedy loop alone, given the distances: the part that differs. "whole" is all of
`divprune` on tokens of that width, the n^2 d distances included, which both sides must compute.
PruMerge's loop builds 4.7 MB of lists for each kept token; whether the allocator gives that back to
the system each time moves the loop, and so the ratio, by a factor of two to three between runs.

HoloV, DyCoke and HiPrune stand beside loops over chunks, pairs of frames and anchors: 32, 23 and 192
dependent steps, each a handful of launches on an accelerator, where ours have none. On a CPU a loop whose
pieces stay in its cache is as quick as one pass over all, and DyCoke takes its pairs of frames one by one.
The loops of `newer_loops.py` have 496 steps (VScan), 256 (FastVID), 528 and 480 (HoliTom's scenes, and its
merge in turn, one product here, which a CPU runs more slowly than the loop), 2,304 (PixelPrune) and 64
(CDPruner in halves, where ours has 32), 31 and 32 (EVS's and VidCom2's frames) and 8 that sort on the host
(DART on embeddings, where ours has 8 on the device); FastVID and HoliTom loop over scenes, which they read
back once.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from newer_loops import NEWER_CASES, Pair, alike

from token_reduction.divprune import cosine_distance, divprune, farthest_points
from token_reduction.dycoke import dycoke
from token_reduction.hiprune import hiprune
from token_reduction.holov import holov
from token_reduction.prumerge import prumerge

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

# What the ratios are held against; --strict makes a miss an exit code of 1.
MARKS = {
    "prumerge n=576": 20.0,
    "divprune selection n=576": 5.0,
    "divprune selection n=2880": 20.0,
}


def pick(values: Tensor, indices: Tensor) -> Tensor:
    """Rows of [b, n, c] by an index spread over the channels."""
    return values.gather(1, indices.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


def loop_prumerge(
    features: Tensor, queries: Tensor, keys: Tensor, *, spatial: bool
) -> tuple[Tensor, Tensor]:
    """One image at a time, one kept token at a time.

    The whole attention map is computed for one row of it; keys and features are split into kept and
    pruned, and put together again without the token at hand for each kept one.
    """
    batch, n, _ = features.shape
    attention = (queries @ keys.transpose(-2, -1)) * keys.shape[-1] ** -0.5
    cls_attention = attention.softmax(dim=-1)[:, 0, 1:]
    values = cls_attention.float().numpy().flatten()
    q1, q3 = np.percentile(values, 25), np.percentile(values, 75)
    ratio = len(np.where(values > q3 + 1.5 * (q3 - q1))[0]) / len(values)
    kept = cls_attention.topk(int(n * ratio), dim=1).indices
    if spatial:
        grid = torch.arange(0, n - 1, int(int(1 / ratio) / 3))
        added = torch.tensor([place for place in grid if place not in kept[0]])
        kept = torch.cat((kept, added.unsqueeze(0)), dim=1)
    taken = [set(row) for row in kept.tolist()]
    pruned = torch.tensor([[j for j in range(n) if j not in row] for row in taken])
    unit = torch.nn.functional.normalize(keys[:, 1:], dim=-1)
    kept_x, kept_k = pick(features, kept), pick(unit, kept)
    kept_a = cls_attention.gather(1, kept)
    pruned_x, pruned_k = pick(features, pruned), pick(unit, pruned)
    pruned_a = cls_attention.gather(1, pruned)
    updated = torch.zeros_like(kept_x)
    for b in range(batch):
        for i in range(kept.shape[1]):
            rest_x = torch.cat((kept_x[b, :i], kept_x[b, i + 1 :], pruned_x[b]))
            rest_k = torch.cat((kept_k[b, :i], kept_k[b, i + 1 :], pruned_k[b]))
            rest_a = torch.cat((kept_a[b, :i], kept_a[b, i + 1 :], pruned_a[b]))
            near = (kept_k[b, i : i + 1] @ rest_k.T).topk(32, dim=1).indices[0]
            updated[b, i] = kept_x[b, i] + (rest_x[near] * rest_a[near].unsqueeze(-1)).sum(dim=0)
    extra = (pruned_x * pruned_a.unsqueeze(-1)).sum(dim=1, keepdim=True)
    return kept, torch.cat((updated, extra), dim=1)


def loop_selection(distance: Tensor, k: int) -> Tensor:
    """Each pick looks at the rows of all earlier picks."""
    picks = torch.empty(k, dtype=torch.long)
    for step in range(k):
        if step == 0:
            scores = distance.topk(2, dim=0, largest=False).values[1]
        else:
            rows = distance.index_select(0, picks.index_select(0, torch.arange(step)))
            scores = rows.min(dim=0).values
        picks[step] = scores.argmax()
    return picks


def loop_divprune(tokens: Tensor, k: int) -> Tensor:
    unit = tokens / tokens.norm(dim=-1, keepdim=True)
    return loop_selection(1.0 - unit @ unit.T, k)


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


def compare(
    baseline: Callable[[], object], method: Callable[[], object], seconds: float
) -> tuple[float, float]:
    """Median seconds of both: they take turns of a tenth of the time, each warm within its turn."""
    samples: tuple[list[float], list[float]] = ([], [])
    for _ in range(5):
        for call, kept in zip((baseline, method), samples, strict=True):
            call()
            end = time.perf_counter() + seconds / 10
            while True:
                begin = time.perf_counter()
                call()
                now = time.perf_counter()
                kept.append(now - begin)
                if now > end:
                    break
    return statistics.median(samples[0]), statistics.median(samples[1])


def random_image(n: int, width: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    # Sharp enough that about 40 of 576 patches are outliers, as the paper reports.
    queries = 1.5 * torch.randn(1, n + 1, width, generator=generator)
    keys = torch.randn(1, n + 1, width, generator=generator)
    return torch.randn(1, n, width, generator=generator), queries, keys


def prumerge_case(*, spatial: bool) -> Pair:
    """PruMerge on one 336-pixel image of CLIP ViT-L: both sides, checked against each other."""
    x, q, k = random_image(576, 1024, seed=0)
    kept, tokens = loop_prumerge(x, q, k, spatial=spatial)
    ours = prumerge(x, q, k, spatial=spatial)
    assert ours.kept_indices is not None
    assert torch.equal(ours.kept_indices, kept)
    torch.testing.assert_close(ours.tokens, tokens, rtol=1e-4, atol=1e-5)
    return (
        lambda: loop_prumerge(x, q, k, spatial=spatial),
        lambda: prumerge(x, q, k, spatial=spatial),
    )


def selection_case(n: int) -> Pair:
    """DivPrune's picks, given the distances."""
    k = round(0.098 * n)
    distance = cosine_distance(random_tokens(n, 64))
    # Running it again on the same matrix picks the same: only the diagonal is overwritten.
    ours = distance.clone()
    assert torch.equal(farthest_points(ours, k), loop_selection(distance, k))
    return lambda: loop_selection(distance, k), lambda: farthest_points(ours, k)


def whole_case(n: int, width: int) -> Pair:
    """All of DivPrune on tokens of a width."""
    k = round(0.098 * n)
    tokens = random_tokens(n, width)
    assert torch.equal(divprune(tokens, k).selection_order, loop_divprune(tokens, k))
    return lambda: loop_divprune(tokens, k), lambda: divprune(tokens, k)


def holov_case() -> Pair:
    tokens = random_tokens(576, 4096)
    row = random_tokens(1, 576).softmax(dim=-1)
    return alike(
        lambda: tokens[loop_holov(tokens, row[0], 64, 16)], lambda: holov(tokens, row, 64).tokens
    )


def dycoke_case() -> Pair:
    clip = random_tokens(32 * 196, 3584).reshape(32, 196, 3584)
    return alike(
        lambda: clip.reshape(-1, 3584)[loop_dycoke(clip, 0.3)], lambda: dycoke(clip).tokens
    )


def hiprune_case() -> Pair:
    tokens = random_tokens(576, 4096)
    shallow, deep = torch.rand(2, 576, generator=torch.Generator().manual_seed(0))
    return alike(
        lambda: tokens[loop_hiprune(shallow, deep, 192, 24)],
        lambda: hiprune(tokens, shallow, deep, 192, side=24).tokens,
    )


def random_tokens(n: int, width: int) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(n))


CASES: dict[str, Callable[[], Pair]] = {
    "prumerge n=576": lambda: prumerge_case(spatial=False),
    "prumerge+ n=576": lambda: prumerge_case(spatial=True),
    "divprune selection n=576": lambda: selection_case(576),
    "divprune selection n=2880": lambda: selection_case(2880),
    "divprune whole n=576 d=64": lambda: whole_case(576, 64),
    "divprune whole n=2880 d=64": lambda: whole_case(2880, 64),
    "divprune whole n=576 d=4096": lambda: whole_case(576, 4096),
    "divprune whole n=2880 d=4096": lambda: whole_case(2880, 4096),
    "holov n=576 d=4096": holov_case,
    "dycoke 32 x 196 d=3584": dycoke_case,
    "hiprune n=576 K=192": hiprune_case,
    **NEWER_CASES,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="time per case")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a mark is missed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    missed = False
    for name, build in CASES.items():
        loop_s, ours_s = compare(*build(), arguments.seconds)
        ratio, mark, aim = loop_s / ours_s, MARKS.get(name), ""
        if mark is not None:
            missed |= ratio < mark
            aim = f"  (mark {mark:g}x: {'missed' if ratio < mark else 'reached'})"
        print(
            f"{name:30} loop {loop_s * 1e3:9.3f} ms   ours {ours_s * 1e3:8.3f} ms   {ratio:7.1f}x{aim}"
        )
    return int(missed and arguments.strict)


if __name__ == "__main__":
    sys.exit(main())
