"""One step of a device's campaign from the command line; see `benchmarks/gpu_campaign.sh`."""

from __future__ import annotations

import argparse
import sys
import time

from hardware_specs.errors import VlmRooflineError
from profiling.device_campaign import STEPS, CampaignPlan, run_device_campaign


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--out", required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--model", default="llava-1.5-7b")
    parser.add_argument("--dtype", help="bf16, or fp32 on a CPU, when absent")
    parser.add_argument("--budget", type=float, help="seconds for the step")
    parser.add_argument("--started", type=float, default=time.time(), help="seconds since 1970")
    options = parser.parse_args()
    dtype = options.dtype or ("fp32" if options.device == "cpu" else "bf16")
    plan = CampaignPlan(options.step, options.device, options.model, dtype, budget_s=options.budget)

    def say(text: str) -> None:
        sys.stderr.write(f"[{time.time() - options.started:6.1f} s] {text}\n")

    try:
        checks = run_device_campaign(
            plan, options.out, spent_s=time.time() - options.started, tell=say
        )
    except VlmRooflineError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    failed = [item for item in checks if not item["ok"]]
    for item in failed:
        say(f"not as it should be: {item['check']}: {item['key']}: {item['found']}")
    say(f"{len(checks) - len(failed)} of {len(checks)} checks hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
