"""HoloV, DyCoke and HiPrune beside loops over chunks, frames and anchors.

    python benchmarks/bench_newer_methods.py [--json]

As in `bench_token_reduction.py`: plain loops that follow the descriptions step by step, on the same
tensors, one CPU thread, in one run; both sides must keep the same tokens. On a CPU a loop over chunks or
frames that stay in its cache is as quick as one pass over all, so DyCoke takes its pairs of frames one by one
there. On an accelerator every step of a loop is a handful of launches from the host and a
read-back, so the number of dependent steps is printed beside; ours have none, and none reads the device
back (`tests/token_reduction/test_no_read_back.py`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import TYPE_CHECKING

import torch

from token_reduction.dycoke import dycoke
from token_reduction.hiprune import hiprune
from token_reduction.holov import holov

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
            f"{row['case']:24} loop {row['loop_s'] * 1e3:8.3f} ms ({row['loop_steps']} steps)   "
            f"ours {row['ours_s'] * 1e3:8.3f} ms   {row['ratio']:5.2f}x"
        )


if __name__ == "__main__":
    main()
