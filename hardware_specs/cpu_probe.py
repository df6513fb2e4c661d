"""Measure this machine's CPU with a fixed number of threads, in a process of its own.

Run as a program: `python cpu_probe.py THREADS COPY_BYTES DTYPE...` prints one JSON object with
op/s by dtype and the copy bandwidth. A BLAS library fixes its thread count when it is loaded, so each count
needs a fresh process; for the same reason this file imports nothing of the package around it.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

#: Time spent on each rate, s. Short on purpose: `specs detect` answers in a second or two.
BUDGET_S = 0.1


def best_time_s(run: Any, budget_s: float = BUDGET_S) -> float:
    """Return the shortest of several runs, s: at least three, then until the budget is spent."""
    best = float("inf")
    end = time.perf_counter() + budget_s
    repeats = 0
    while repeats < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
        repeats += 1
    return best


def matmul_flop_per_s(dtype: str, threads: int) -> float:
    """Return the highest matrix-product rate in FLOP/s: 2 n^3 over the shortest time.

    The process was started with as many threads for BLAS.
    """
    n = 256
    while True:
        run = _matmul(dtype, n, threads)
        run()
        start = time.perf_counter()
        run()
        elapsed = time.perf_counter() - start
        # Large enough that starting threads costs nothing, small enough for three repetitions.
        if elapsed > BUDGET_S / 8 or n >= 4096:
            return 2 * n**3 / min(elapsed, best_time_s(run))
        n *= 2


def _matmul(dtype: str, n: int, threads: int) -> Any:
    if dtype in ("bf16", "fp16"):
        import torch

        torch.set_num_threads(threads)
        kind = torch.bfloat16 if dtype == "bf16" else torch.float16
        x = torch.ones(n, n, dtype=kind)
        y = torch.empty_like(x)
        return lambda: torch.mm(x, x, out=y)
    import numpy as np

    a = np.ones((n, n), dtype=np.float64 if dtype == "fp64" else np.float32)
    b = np.empty_like(a)
    return lambda: np.matmul(a, a, out=b)


def copy_bytes_per_s(threads: int, size_bytes: int) -> float:
    """Return the copy bandwidth in B/s: bytes read plus bytes written, over the shortest time.

    `size_bytes`, several times the last-level cache, are copied in all.
    """
    import numpy as np

    source = np.ones(size_bytes // 4, np.float32)
    target = np.zeros_like(source)
    pairs = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    for _, part in pairs:
        part.fill(1)  # the first write to a page costs a page fault, the copy must not pay it
    with ThreadPoolExecutor(threads) as pool:
        # numpy releases the interpreter lock while it copies.
        time_s = best_time_s(
            lambda: list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), pairs))
        )
    return 2 * source.nbytes / time_s


def main(arguments: list[str]) -> None:
    """Measure and print."""
    threads, size_bytes, dtypes = int(arguments[0]), int(arguments[1]), arguments[2:]
    rates = {dtype: matmul_flop_per_s(dtype, threads) for dtype in dtypes}
    result = {"flop_per_s": rates, "copy_bytes_per_s": copy_bytes_per_s(threads, size_bytes)}
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
