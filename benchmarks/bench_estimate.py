"""How fast estimates are, as ratios and rates of one run: `make benchmarks`.

A peer's pure-Python estimate takes 0.08 to 0.2 ms; ours is held against 0.15 ms. Each benchmark
varies its tokens, so that nothing is answered from a cache of results.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from statistics import median

import numpy as np

from costmodel import estimate
from costmodel.questions.sweeps import sweep_chunks

A100 = "nvidia-a100-sxm4-80gb"
PEER_S = 0.15e-3


def test_one_warm_estimate(benchmark) -> None:
    counts = itertools.cycle(range(1, 577))
    benchmark(lambda: estimate("llava-1.5-7b", A100, visual_tokens=next(counts)))
    benchmark.extra_info["of the best peer's time"] = benchmark.stats["median"] / PEER_S


def test_one_warm_estimate_to_json(benchmark) -> None:
    counts = itertools.cycle(range(1, 577))
    benchmark(
        lambda: json.dumps(estimate("llava-1.5-7b", A100, visual_tokens=next(counts)).to_dict())
    )


def test_sweep_of_a_million(benchmark) -> None:
    def run() -> int:
        chunks = sweep_chunks(
            "llava-1.5-7b", A100, visual_tokens=np.arange(1, 1001), batch_size=np.arange(1, 1001)
        )
        return sum(chunk.rows for chunk in chunks)

    rows = benchmark.pedantic(run, rounds=3, iterations=1)
    assert rows == 1_000_000
    benchmark.extra_info["scenarios per second"] = rows / benchmark.stats["median"]


def test_calibrated_over_ideal_sweep(benchmark) -> None:
    """A calibrated sweep of 200,000 scenarios against the same one under the ideal roofline, by turns."""
    counts, batches = np.arange(1, 1001), np.arange(1, 201)

    def swept(calibration: str) -> float:
        start = time.perf_counter()
        for _ in sweep_chunks(
            "llava-1.5-7b", A100, visual_tokens=counts, batch_size=batches, calibration=calibration
        ):
            pass
        return time.perf_counter() - start

    swept("auto")
    pairs = [(swept("none"), swept("auto")) for _ in range(9)]
    benchmark.pedantic(lambda: swept("auto"), rounds=1, iterations=1)
    benchmark.extra_info["of the ideal sweep's rate"] = median(ideal / own for ideal, own in pairs)


def test_calibrated_over_ideal_estimate(benchmark) -> None:
    """One estimate at a token count it has not seen, calibrated against ideal, by turns."""
    counts = itertools.cycle(range(1, 577))

    def priced(calibration: str) -> float:
        start = time.perf_counter()
        for _ in range(200):
            estimate("llava-1.5-7b", A100, visual_tokens=next(counts), calibration=calibration)
        return time.perf_counter() - start

    priced("auto")
    pairs = [(priced("none"), priced("auto")) for _ in range(9)]
    benchmark.pedantic(lambda: priced("auto"), rounds=1, iterations=1)
    benchmark.extra_info["times the ideal estimate's time"] = median(
        own / ideal for ideal, own in pairs
    )


def test_vectorised_over_looped(benchmark) -> None:
    """One sweep of 20,000 scenarios against as many calls of `estimate`."""
    batches, counts = range(1, 21), range(1, 1001)

    def swept() -> None:
        list(sweep_chunks("llava-1.5-7b", A100, visual_tokens=counts, batch_size=batches))

    benchmark.pedantic(swept, rounds=5, iterations=1)
    start = time.perf_counter()
    for count in range(1, 1001):
        estimate("llava-1.5-7b", A100, visual_tokens=count)
    looped = (time.perf_counter() - start) * len(batches)
    benchmark.extra_info["times faster than a loop"] = looped / benchmark.stats["median"]


def test_cold_command_line(benchmark) -> None:
    line = [
        sys.executable,
        "-m",
        "vlm_roofline.cli",
        "estimate",
        "llava-1.5-7b",
        "-d",
        A100,
        "--json",
    ]
    benchmark.pedantic(
        lambda: subprocess.run(line, check=True, capture_output=True), rounds=7, warmup_rounds=1
    )
    # A second, independent mark: what starting Python and numpy alone costs.
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import numpy"], check=True)
    benchmark.extra_info["of starting numpy alone"] = benchmark.stats["median"] / (
        time.perf_counter() - start
    )
