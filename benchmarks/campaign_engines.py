"""What launching a campaign costs, by engine, and how Ray workers scale: ratios within one run.

    PYTHONPATH=.:tests/fakes python benchmarks/campaign_engines.py --points 16 --rounds 3

The campaign is a tiny model on the CPU whose points take a quarter of a second each. A launch's start is
the time to its first record; a point's time is from the first record to the last over the points between.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ray_nodes import add_node, ray_cluster
from tiny_models import LLAVA

from profiling import Options, Plan, StopRule, WarmUpRule, grid, launch, run_points

if TYPE_CHECKING:
    from collections.abc import Callable

POINT_S = 0.25


def timed(engine: Callable[[Path], object], folder: Path) -> tuple[float, float]:
    """Return the seconds to the first record, and those per point after it."""
    began = time.time()
    engine(folder)
    written = sorted(path.stat().st_mtime for path in folder.glob("*.json"))
    return written[0] - began, (written[-1] - written[0]) / (len(written) - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    options = Options(
        rule=StopRule(min_samples=3, min_time_s=POINT_S, max_time_s=POINT_S),
        warm_up=WarmUpRule(min_time_s=0.0, max_time_s=0.01), counters=False, memory=False,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, ray_cluster() as cluster:
        add_node(cluster, one=1)
        source, out = Path(folder, "model"), Path(folder, "out")
        source.mkdir()
        (source / "config.json").write_text(json.dumps(LLAVA))
        counts = [1 + number % 16 for number in range(asked.points)]
        configurations = grid(
            [str(source)], dtypes=["fp32"], device="cpu", visual_tokens=sorted(set(counts)),
            text_tokens=3, batch_sizes=range(1, 2 + (asked.points - 1) // 16),
        )[: asked.points]  # fmt: skip
        plan = Plan(configurations, rounds=1, options=options)
        engines: dict[str, Callable[[Path], object]] = {
            "no launch": lambda path: list(run_points(plan, path)),
            "local, 1 worker": partial(launch, plan),
            "local, 2 workers": partial(launch, plan, workers=2),
            "ray, 1 host": partial(launch, plan, engine="ray", device="one"),
            "ray, 2 hosts": partial(launch, plan, engine="ray"),
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in engines}
        for round_ in range(asked.rounds):
            for number, (name, engine) in enumerate(engines.items()):
                found[name].append(timed(engine, out / f"{round_}-{number}"))
    print("engine             first record (s)   per point (s)   over no launch")
    base = statistics.median(each for _, each in found["no launch"])
    for name, times in found.items():
        start, each = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"{name:18s} {start:16.1f} {each:15.3f} {each / base:16.2f}")


if __name__ == "__main__":
    main()
