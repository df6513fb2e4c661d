"""Micro-benchmarks of one device into one file: `python benchmarks/measure_ops.py --out ops.json`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from profiling.microbench.suite import default_suite, run_microbenchmarks


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--model", default="llava-1.5-7b")
    parser.add_argument("--dtypes", default="bf16")
    parser.add_argument("--total", type=float, help="seconds for the whole suite")
    options = parser.parse_args()
    suite = default_suite(options.device)
    if options.total is not None:
        suite = replace(suite, total_s=options.total)
    if options.device == "cpu":
        import torch

        torch.set_num_threads(1)

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty() or done % 50 == 0:
            sys.stderr.write(f"\r{done} of {total} ops" + ("" if sys.stderr.isatty() else "\n"))

    table = run_microbenchmarks(
        options.device, model=options.model, dtypes=options.dtypes.split(","), suite=suite,
        on_progress=show,
    )  # fmt: skip
    path = table.write(options.out)
    rates = ", ".join(f"{name} {value:.3g}" for name, value in table.ceilings.items())
    sys.stderr.write(f"\n{len(table.rows)} ops in {path}; {rates}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
