"""How much the vectorised methods gain over a plain transcription of the published loops.

    python benchmarks/bench_token_reduction.py [--json]

Baselines live here and nowhere else: they follow the loops of the methods' programs step by step
(PruMerge walks over images and kept tokens in Python; DivPrune takes the minimum over all picks
anew at every pick), on the same tensors, one CPU thread, in one run. Both sides must pick the same
tokens, or the run fails. They take turns, and the ratio is that of the medians.

"selection" is the greedy loop alone, given the distances: the part that differs. "whole" is all of
`divprune` on tokens of that width, the n^2 d distances included, which both sides must compute.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from token_reduction.divprune import cosine_distance, divprune, farthest_points
from token_reduction.prumerge import prumerge

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

# What the ratios must reach; a miss makes the exit code 1.
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


def prumerge_cases(seconds: float) -> dict[str, tuple[float, float]]:
    results = {}
    for name, n, spatial in (
        ("prumerge n=576", 576, False),
        ("prumerge+ n=576", 576, True),
    ):
        x, q, k = random_image(n, 1024, seed=0)
        kept, tokens = loop_prumerge(x, q, k, spatial=spatial)
        ours = prumerge(x, q, k, spatial=spatial)
        assert ours.kept_indices is not None
        assert torch.equal(ours.kept_indices, kept), name
        torch.testing.assert_close(ours.tokens, tokens, rtol=1e-4, atol=1e-5)
        results[f"{name} ({kept.shape[1]} kept)"] = compare(
            lambda x=x, q=q, k=k, s=spatial: loop_prumerge(x, q, k, spatial=s),
            lambda x=x, q=q, k=k, s=spatial: prumerge(x, q, k, spatial=s),
            seconds,
        )
    return results


def divprune_cases(seconds: float) -> dict[str, tuple[float, float]]:
    results = {}
    for n, width in ((576, 4096), (2880, 4096), (576, 64), (2880, 64)):
        tokens = torch.randn(n, width, generator=torch.Generator().manual_seed(n))
        k = round(0.098 * n)
        distance = cosine_distance(tokens)
        wanted = loop_selection(distance, k)
        assert torch.equal(farthest_points(distance.clone(), k), wanted), n
        assert torch.equal(divprune(tokens, k).selection_order, wanted), n
        if width == 4096:
            # Running it again on the same matrix picks the same: only the diagonal is overwritten.
            ours = distance.clone()
            results[f"divprune selection n={n} ({k} kept)"] = compare(
                lambda d=distance, k=k: loop_selection(d, k),
                lambda d=ours, k=k: farthest_points(d, k),
                seconds,
            )
        results[f"divprune whole n={n} d={width} ({k} kept)"] = compare(
            lambda t=tokens, k=k: loop_divprune(t, k),
            lambda t=tokens, k=k: divprune(t, k),
            seconds,
        )
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--seconds", type=float, default=2.0, help="time per case")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    results = {**prumerge_cases(arguments.seconds), **divprune_cases(arguments.seconds)}
    rows = []
    for name, (baseline_s, method_s) in results.items():
        mark = next((v for key, v in MARKS.items() if name.startswith(key + " ")), None)
        ratio = baseline_s / method_s
        rows.append(
            {
                "case": name,
                "baseline_s": baseline_s,
                "method_s": method_s,
                "ratio": ratio,
                "mark": mark,
                "reached": None if mark is None else ratio >= mark,
            }
        )
    if arguments.json:
        print(json.dumps({"torch": torch.__version__, "threads": 1, "cases": rows}, indent=1))
    else:
        for row in rows:
            aim = "" if row["mark"] is None else f"  (mark {row['mark']:g}x)"
            print(
                f"{row['case']:44} loop {row['baseline_s'] * 1e3:9.3f} ms   "
                f"ours {row['method_s'] * 1e3:8.3f} ms   {row['ratio']:7.1f}x{aim}"
            )
    return 0 if all(row["reached"] is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
