"""Rate of a sweep that is reduced, over processes of this machine, and what a table costs beside its pieces.

    python benchmarks/bench_sweep.py            10^7 scenarios on 1 and on all processors, ratios
    python benchmarks/bench_sweep.py --rows 1e9 --workers 2     that many scenarios, once
    PYTHONPATH=.:tests/fakes python benchmarks/bench_sweep.py --engine ray      over one node and over two

The scenarios are models x devices x methods x precisions x text tokens x batch x output; the Pareto front is
of time to the first token, device-seconds of a sample and memory. Processors' time is printed beside wall
time: on a machine that others use, the former says what the sweep takes.
"""

from __future__ import annotations

import argparse
import resource
import time
from typing import Any

from costmodel import pareto, sweep
from costmodel.questions.chunks import join_chunks
from costmodel.questions.sweeps import SweepPlan

AXES = ("ttft_s", "device_s", "peak_memory_bytes")
CATEGORIES: dict[str, Any] = {
    "model": ["llava-1.5-7b", "llava-1.5-13b", "qwen2.5-vl-3b", "qwen2.5-vl-7b", "internvl3-8b"],
    "hardware": [
        "nvidia-a100-sxm4-80gb", "nvidia-h100-sxm5-80gb", "nvidia-l4", "nvidia-l40s",
        "nvidia-rtx-4090", "nvidia-t4", "nvidia-v100-sxm2-32gb", "nvidia-h200-sxm-141gb",
    ],
    "method": ["none", "fastv", "divprune", "dart", "sparsevlm"],
    "keep": [0.1, 0.25, 0.5],
    "precision": ["fp16", "w8a16", "w4a16"],
}  # fmt: skip
OUTPUT = [0, 1, 4, 16, 64, 128, 256, 512, 1024, 2048]


def grid(rows: float) -> dict[str, Any]:
    """Return arguments of about so many rows: the categories, 10 lengths of output, 64 batches, text."""
    combined = SweepPlan(**CATEGORIES).rows
    texts = max(1, round(rows / combined / len(OUTPUT) / 64))
    return {
        **CATEGORIES,
        "text_tokens": range(16, 16 + 8 * texts, 8),
        "batch_size": range(1, 65),
        "output_tokens": OUTPUT,
    }


def spent() -> float:
    """Return the processors' time of this process and of those that ended, in seconds."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def measured(arguments: dict[str, Any], workers: int) -> tuple[float, float, Any]:
    """Return seconds on the wall and of processors, and the front."""
    wall, before = time.perf_counter(), spent()
    front = sweep(**arguments, errors="keep", reduce=pareto(*AXES), workers=workers)
    return time.perf_counter() - wall, spent() - before, front


def told(workers: int, wall: float, used: float, front: Any) -> None:
    """Print a run."""
    rows = front.attrs["rows"]
    memory = max(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    rates = f"{rows / wall / 1e3:,.0f} and {rows / used / 1e3:,.0f} thousand a second"
    print(
        f"{workers} workers: {rows:,} scenarios ({front.attrs['unpriced']:,} not priced) in {wall:.1f} s, "
        f"{used:.1f} s of processors: {rates}; largest process {memory / 1024:.0f} MiB; "
        f"front of {len(front)}",
        flush=True,
    )


def table_ratio() -> float:
    """Return the rate of a table over that of its pieces, in processors' time; the best of three each."""
    counts = {"visual_tokens": range(64, 577), "batch_size": range(1, 65), "output_tokens": [0, 64]}
    plan = SweepPlan("llava-1.5-7b", "nvidia-a100-sxm4-80gb", **counts)
    times: dict[str, list[float]] = {"pieces": [], "table": []}
    for _ in range(3):
        for name, held in times.items():
            before = time.process_time()
            chunks = list(plan.chunks()) if name == "table" else None
            if chunks is None:
                for _ in plan.chunks():
                    pass
            else:
                join_chunks(chunks)
            held.append(time.process_time() - before)
    return min(times["pieces"]) / min(times["table"])


def over_ray(arguments: dict[str, Any]) -> None:
    """Print the wall time of two processes of this machine, and of Ray on one node and on two."""
    from ray_nodes import add_node, ray_cluster

    walls, fronts = {}, []
    with ray_cluster() as cluster:
        for name, engine in (("2 processes", "local"), ("1 node", "ray"), ("2 nodes", "ray")):
            if name == "2 nodes":
                add_node(cluster)
            how: dict[str, Any] = {"reduce": pareto(*AXES), "engine": engine, "workers": 2}
            if engine == "ray":
                how["workers"] = None
                sweep("llava-1.5-7b", "nvidia-l4", batch_size=range(1, 9), **how)  # starts workers
            began = time.perf_counter()
            fronts.append(sweep(**arguments, errors="keep", **how))
            walls[name] = time.perf_counter() - began
            print(
                f"{name}: {fronts[-1].attrs['rows']:,} scenarios in {walls[name]:.1f} s", flush=True
            )
    assert all(front.equals(fronts[0]) for front in fronts), "the fronts differ"
    print(f"wall of 1 node over that of 2: {walls['1 node'] / walls['2 nodes']:.2f}")
    print(
        f"wall of 2 nodes over that of 2 processes: {walls['2 nodes'] / walls['2 processes']:.2f}"
    )


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=float, default=1e7)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--engine", choices=["local", "ray"], default="local")
    asked = parser.parse_args()
    arguments = grid(asked.rows)
    if asked.engine == "ray":
        over_ray(arguments)
        return
    if asked.workers is not None:
        wall, used, front = measured(arguments, asked.workers)
        told(asked.workers, wall, used, front)
        shown = [
            "model",
            "hardware",
            "method",
            "keep",
            "precision",
            "text_tokens",
            "batch_size",
            *AXES,
        ]
        print(front[[*shown, "output_tokens"]].to_string(max_rows=30))
        return
    runs = {workers: measured(arguments, workers) for workers in (1, 2)}
    for workers, run in runs.items():
        told(workers, *run)
    assert runs[1][2].equals(runs[2][2]), "the fronts differ"
    print(f"wall of 1 worker over that of 2: {runs[1][0] / runs[2][0]:.2f}")
    print(f"a table over its pieces: {table_ratio():.2f}")


if __name__ == "__main__":
    main()
