"""Everything one device can tell, in one go and inside a time limit.

    python benchmarks/measure_device.py --out FOLDER [--device cuda|cpu] [--model NAME] [--budget 560]

Writes at most seven files into the folder:

    environment.json    software, device, NVML capabilities, the hardware it was recognised as
    ops.json            micro-benchmarks and ceilings
    measurements.jsonl  the token sweep (eager, CUDA graphs), every method, decode
    energy.jsonl        the same records for a few points, with energy windows
    <point>_ops.json    one profiler pass by op, and its Chrome trace (.json.gz)
    checks.json         FLOPs counted on the device against the cost model, point by point

Each part has a share of the budget and stops when it is spent; what was measured is written. Points
come in random order, so a part that is cut short still covers the whole grid thinly.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hardware_specs.files.writing import prepare_folder, write_file
from profiling.instruments.environment import describe_environment
from profiling.instruments.nvml import open_monitor
from profiling.measuring.campaign import run_campaign
from profiling.measuring.kernel_pass import run_kernel_passes
from profiling.measuring.planning import grid
from profiling.measuring.point import Options
from profiling.measuring.stopping import StopRule, WarmUpRule
from profiling.microbench.suite import CPU_SUITE, CUDA_SUITE, run_microbenchmarks
from profiling.records.storage import pack_measurements
from profiling.subject.models import QUANTISED_DTYPES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from profiling.records.measurement import Configuration, Measurement

TOKENS = [1, 16, 36, 64, 128, 144, 192, 288, 384, 416, 512, 576, 1152, 2880]
#: Shares of the budget at whose end each part stops.
OPS_UNTIL, SWEEP_UNTIL, ENERGY_UNTIL = 0.25, 0.82, 0.93
#: In a device campaign many short points tell more than few long ones.
RULE = StopRule(min_samples=8, min_time_s=0.25, max_time_s=2.0, max_samples=100)
WARM_UP = WarmUpRule(min_time_s=0.3, max_time_s=1.5)


def main() -> int:
    options = _arguments()
    if options.device == "cpu":
        import torch

        torch.set_num_threads(1)
    started = time.monotonic()
    out = prepare_folder(options.out)

    def until(share: float) -> float:
        return options.budget * share - (time.monotonic() - started)

    _say(started, "environment")
    write_file(out / "environment.json", json.dumps(_environment(options.device), indent=1))
    _say(started, "micro-benchmarks")
    suite = CUDA_SUITE if options.device.startswith("cuda") else CPU_SUITE
    ops = run_microbenchmarks(
        options.device, model=options.model, dtypes=options.dtypes.split(","),
        suite=replace(suite, total_s=max(1.0, until(OPS_UNTIL))),
    )  # fmt: skip
    ops.write(out / "ops.json")
    _say(started, f"{len(ops.rows)} ops, {len(ops.skipped)} left out; sweep, methods, decode")
    points = _points(options)
    records = _campaign(
        points, Options(RULE, WARM_UP, kernels=False, energy=False), until, SWEEP_UNTIL
    )
    pack_measurements(records, out / "measurements.jsonl")
    write_file(out / "checks.json", json.dumps(_checks(records), indent=1))
    _say(started, f"{len(records)} of {len(points)} points; energy")
    energy = _campaign(
        _energy_points(options),
        Options(RULE, WARM_UP, counters=False, kernels=False),
        until,
        ENERGY_UNTIL,
    )
    pack_measurements(energy, out / "energy.jsonl")
    _say(started, f"{len(energy)} points; profiler pass")
    if until(1.0) > 0:
        for _ in run_kernel_passes([_profiled(options)], out, traces=True):
            pass
    _say(started, "done: " + ", ".join(sorted(path.name for path in out.iterdir())))
    return _verdict(records)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--model", default="llava-1.5-7b")
    parser.add_argument("--dtypes", default="bf16")
    parser.add_argument(
        "--tokens", type=lambda text: [int(n) for n in text.split(",")], default=TOKENS
    )
    parser.add_argument(
        "--batches", type=lambda text: [int(n) for n in text.split(",")], default=[1, 8]
    )
    parser.add_argument("--budget", type=float, default=560.0, help="seconds for everything")
    return parser.parse_args()


def _say(started: float, text: str) -> None:
    sys.stderr.write(f"[{time.monotonic() - started:6.1f} s] {text}\n")


def _environment(device: str) -> dict[str, Any]:
    from hardware_specs import detect_hardware
    from hardware_specs.errors import VlmRooflineError

    monitor = open_monitor(device)
    try:
        recognised = detect_hardware(device.partition(":")[0]).id
    except VlmRooflineError as error:
        recognised = f"not recognised: {error}"
    foreign = monitor.foreign_processes(own_context=True)
    return {
        "kind": "environment",
        "environment": describe_environment(device, monitor),
        "capabilities": dict(monitor.capabilities),
        "hardware": recognised,
        "foreign_processes": None if foreign is None else len(foreign),
        "energy_j": monitor.energy_j(),
        "power_w": monitor.power_w(),
    }


def _points(options: argparse.Namespace) -> list[Configuration]:
    from token_reduction import list_methods

    on_cuda = options.device.startswith("cuda")
    dtype = next(name for name in options.dtypes.split(",") if name not in QUANTISED_DTYPES)
    common: dict[str, Any] = {
        "dtypes": [dtype], "device": options.device, "batch_sizes": options.batches,
    }  # fmt: skip
    modes = ["eager", "cuda-graph"] if on_cuda else ["eager"]
    sweep = grid([options.model], visual_tokens=options.tokens, modes=modes, **common)
    decode = grid([options.model], visual_tokens=[576, 64], modes=modes, output_tokens=8, **common)
    methods = [
        configuration
        for method in list_methods()
        for configuration in grid([options.model], methods=[method], keeps=[None], **common)
        if _fits(configuration)
    ]
    return [*sweep, *decode, *methods]


def _fits(configuration: Configuration) -> bool:
    from hardware_specs.errors import VlmRooflineError
    from profiling.measuring.planning import check

    try:
        check([configuration])
    except VlmRooflineError as error:
        sys.stderr.write(f"  left out: {configuration.method}: {error}\n")
        return False
    return True


def _energy_points(options: argparse.Namespace) -> list[Configuration]:
    return [
        replace(configuration, output_tokens=1)
        for configuration in _points(options)
        if configuration.method == "none"
        and configuration.mode == "eager"
        and configuration.output_tokens == 0
        and configuration.visual_tokens in (1, 64, 576)
    ]


def _profiled(options: argparse.Namespace) -> Configuration:
    first = _points(options)[0]
    return replace(first, visual_tokens=576, batch_size=1, output_tokens=1, mode="eager")


def _campaign(
    points: list[Configuration], options: Options, until: Any, share: float
) -> list[Measurement]:
    """Measure until the share of the budget is spent; the order is random, so any cut is fair."""
    records = []
    with tempfile.TemporaryDirectory() as folder:
        campaign = run_campaign(points, folder, rounds=1, options=options)
        while until(share) > 0:
            record = next(campaign, None)
            if record is None:
                break
            records.append(record)
            if record.status != "ok":
                sys.stderr.write(f"  {record.configuration.key}: {record.status}: {record.error}\n")
        campaign.close()
    return records


def _checks(records: Iterable[Measurement]) -> dict[str, Any]:
    """Hold the FLOPs counted on the device against the cost model, stage by stage."""
    from costmodel import estimate
    from hardware_specs.errors import VlmRooflineError

    rows = []
    for record in records:
        configuration = record.configuration
        if record.status != "ok":
            continue
        try:
            expected = estimate(
                configuration.model, "nvidia-h200-sxm-141gb", precision=configuration.dtype,
                visual_tokens=configuration.visual_tokens if configuration.method == "none" else None,
                text_tokens=configuration.text_tokens, batch_size=configuration.batch_size,
                output_tokens=configuration.output_tokens, method=configuration.method,
                keep=configuration.keep, execution="hf-eager",
            )  # fmt: skip
        except VlmRooflineError as error:
            rows.append({"key": configuration.key, "not_comparable": str(error)})
            continue
        rows += [
            {
                "key": configuration.key, "method": configuration.method, "stage": stage,
                "counted": data.flops, "expected": int(expected.stages[stage].flops),
            }
            for stage, data in record.stages.items()
            if stage != "total" and data.flops is not None
        ]  # fmt: skip
    return {"kind": "checks", "rows": rows}


def _verdict(records: Iterable[Measurement]) -> int:
    """Return 1 when a plain run's FLOPs differ from the cost model's; methods are reported only."""
    rows = _checks(records)["rows"]
    plain = [row for row in rows if row.get("method") == "none"]
    wrong = [row for row in plain if row["counted"] != row["expected"]]
    for row in wrong:
        sys.stderr.write(f"  counter differs: {row}\n")
    sys.stderr.write(f"counter == cost model in {len(plain) - len(wrong)} of {len(plain)} stages\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
