"""A campaign on one device within a budget of seconds: `smoke`, `core` or `more`.

    smoke   does every path run, and is what it measures what it says (four minutes of a GPU)
    core    what predictions are held against, in order of worth (eight minutes)
    more    quantised weights, larger batches, further rounds (as long as there is time)

Each is `run_microbenchmarks`, `run_campaign` and `run_kernel_passes` with what to measure chosen. Every
record is on disk as soon as it is measured, and what is there is not measured again, so that a step may
be killed, continued, or followed by the next one in the same folder:

    environment.json    software, device, sensors, the hardware it was recognised as
    ops.jsonl           micro-benchmarks, row by row; `ops.json` when they are complete
    points/             one record per point
    passes/             profiler passes by op
    measurements.jsonl  the points, packed when a step ends
    checks.json         what a look at the records says, worst first
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING, Any

from costmodel.models import load_model
from hardware_specs.errors import InvalidInputError, VlmRooflineError, check_kind
from hardware_specs.files.writing import appending, prepare_folder, write_file
from profiling.devices.device import open_device
from profiling.instruments.environment import describe_environment
from profiling.instruments.nvml import open_monitor
from profiling.measuring.campaign import run_campaign
from profiling.measuring.kernel_pass import run_kernel_passes
from profiling.measuring.planning import check, grid
from profiling.measuring.point import Options
from profiling.measuring.stopping import StopRule, WarmUpRule
from profiling.microbench.suite import Suite, default_suite, run_microbenchmarks
from profiling.microbench.table import read_op_rows
from profiling.records.measurement import TOTAL, Measurement
from profiling.records.model_names import model_of
from profiling.records.storage import pack_measurements, read_measurements
from profiling.subject.models import canonical_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from profiling.devices.interface import Device
    from profiling.microbench.table import OpTable
    from profiling.records.measurement import Configuration

STEPS = ("smoke", "core", "more")
#: Seconds of each step unless told otherwise.
BUDGETS = {"smoke": 240.0, "core": 480.0, "more": 480.0}
#: The share of a step's time that micro-benchmarks may take, and by which the points end.
OPS_SHARE, POINTS_SHARE = 0.2, 0.9
COUNTS = (576, 64, 1, 288, 144, 2880, 1152, 512, 416, 384, 192, 128, 36, 16)
#: Counts at which energy is measured and kernels are listed.
CLOSELY = (576, 64)
QUANTISED = ("w4a16", "fp8")
#: In a campaign many short points tell more than few long ones.
RULE = StopRule(min_samples=8, min_time_s=0.25, max_time_s=2.0, max_samples=100)
WARM_UP = WarmUpRule(min_time_s=0.3, max_time_s=1.5)


@dataclass(frozen=True)
class CampaignPlan:
    """The settings of a campaign.

    Attributes:
        step: `smoke`, `core` or `more`.
        device: `cuda`, `cuda:N` or `cpu`.
        model: a shipped name, path or hub id, with its scale.
        dtype: of the weights.
        counts: visual tokens of the sweep, in order of worth.
        closely: the counts that are looked at closely, energy and kernels included.
        methods: reduction methods, each at its published setting.
        quantised: labels of quantised weights for `more`.
        budget_s: seconds for the step; None takes `BUDGETS`.
        rule: when a point has enough samples.
        warm_up: when its first sample may be taken.
        suite: the micro-benchmarks; None takes the device's.
    """

    step: str = "smoke"
    device: str = "cuda"
    model: str = "llava-1.5-7b"
    dtype: str = "bf16"
    counts: tuple[int, ...] = COUNTS
    closely: tuple[int, ...] = CLOSELY
    methods: tuple[str, ...] | None = None
    quantised: tuple[str, ...] = QUANTISED
    budget_s: float | None = None
    rule: StopRule = RULE
    warm_up: WarmUpRule = WARM_UP
    suite: Suite | None = None

    def __post_init__(self) -> None:
        """Reject a step that does not exist, and a budget in which nothing can be measured."""
        if self.step not in STEPS:
            raise InvalidInputError(f"step {self.step!r} is none of {', '.join(STEPS)}")
        if self.budget_s is not None:
            check_kind("budget_s", self.budget_s, Real, "a number of seconds")
        if self.budget_s is not None and not 0 < self.budget_s < math.inf:
            raise InvalidInputError(f"budget_s must be positive and finite, not {self.budget_s}")


def run_device_campaign(
    plan: CampaignPlan,
    folder: str | Path,
    *,
    spent_s: float = 0.0,
    tell: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Run one step into a folder and return its checks, those that failed first.

    Args:
        plan: the settings.
        folder: created when missing; a folder with results is gone on with.
        spent_s: seconds of the budget that are gone already, such as for starting Python.
        tell: is told what is being done.

    Raises:
        OutputError: the folder cannot be written.
        UnknownModelError: no such model.
        UnknownPrecisionError: no such dtype.
        DeviceUnavailableError: no such device, or it was lost; what was measured is kept.
    """
    # What is cheap to refuse comes before anything is written.
    check_kind("plan", plan, CampaignPlan, "a CampaignPlan")
    device = open_device(plan.device)
    load_model(plan.model)
    for dtype in (plan.dtype, *plan.quantised):
        canonical_dtype(dtype)
    target = prepare_folder(folder)
    say = tell or (lambda _text: None)
    begun_s, budget_s = time.monotonic() - spent_s, plan.budget_s or BUDGETS[plan.step]

    def left(share: float) -> float:
        return budget_s * share - (time.monotonic() - begun_s)

    try:
        say("environment")
        write_file(target / "environment.json", json.dumps(_environment(device), indent=1))
        if plan.step != "more":
            say("micro-benchmarks")
            _measure_ops(plan, target, max(1.0, left(OPS_SHARE)))
        points = dict(points_of(plan, device.kind, say))
        say(f"{len(points)} points")
        campaign = run_campaign(
            list(points), target / "points", rounds=2 if plan.step == "more" else 1,
            options=points.__getitem__, in_order=True, threads=1,
        )  # fmt: skip
        while left(POINTS_SHARE) > 0 and (record := next(campaign, None)) is not None:
            say(_line(record))
        campaign.close()
        if plan.step == "core":
            say("profiler passes")
            passes = grid([plan.model], dtypes=[plan.dtype], visual_tokens=plan.closely,
                          output_tokens=1, device=plan.device)  # fmt: skip
            done = run_kernel_passes(passes, target / "passes")
            while left(1.0) > 0 and next(done, None) is not None:
                pass
    finally:
        # Also after a kill: what was measured is packed and looked at.
        records = read_measurements(target / "points") if (target / "points").exists() else []
        pack_measurements(records, target / "measurements.jsonl")
        checks = sorted(check_records(records), key=lambda item: item["ok"])
        write_file(target / "checks.json", json.dumps({"kind": "checks", "rows": checks}, indent=1))
    say(f"{len(records)} records in {target}")
    return checks


def _environment(device: Device) -> dict[str, Any]:
    from hardware_specs import detect_hardware

    monitor = open_monitor(device.name)
    try:
        recognised = detect_hardware(device.kind).id
    except VlmRooflineError as error:
        recognised = f"not recognised: {error}"
    return {
        "kind": "environment",
        "environment": describe_environment(device.name, monitor),
        "capabilities": dict(monitor.capabilities),
        "why_missing": dict(device.why_missing),
        "hardware": recognised,
    }


def _measure_ops(plan: CampaignPlan, folder: Path, seconds: float) -> OpTable:
    """Time single ops, each row appended to a file at once; rows in it are not timed again."""
    path = folder / "ops.jsonl"
    known = read_op_rows(path)
    suite = plan.suite or default_suite(plan.device)
    if plan.step == "smoke":
        # A few of each kind show that they run; `core` measures the others.
        suite = replace(suite, rows=tuple(m for m in suite.rows if m in (1, 64, 616)))
    with appending(path) as append:
        table = run_microbenchmarks(
            plan.device, model=plan.model,
            dtypes=(plan.dtype, *(plan.quantised if plan.step == "smoke" else ())),
            suite=replace(suite, total_s=seconds), known=known,
            on_row=lambda row: append(json.dumps(row, allow_nan=False)),
        )  # fmt: skip
    table.write(folder / "ops.json")
    return table


def points_of(
    plan: CampaignPlan, kind: str, say: Callable[[str], None]
) -> Iterator[tuple[Configuration, Options]]:
    """Yield the points of a step in order of worth, each with how it is measured.

    Args:
        plan: the settings.
        kind: `cuda` or `cpu`.
        say: is told which methods the model does not take.
    """
    modes = ["eager", "cuda-graph"] if kind == "cuda" else ["eager"]
    plain = Options(plan.rule, plan.warm_up, kernels=False, energy=False)
    closely = Options(plan.rule, plan.warm_up)

    def some(counts: Sequence[int], **changes: Any) -> list[Configuration]:
        settings: dict[str, Any] = {"dtypes": [plan.dtype], "modes": modes, "device": plan.device}
        return grid([plan.model], visual_tokens=counts, **{**settings, **changes})

    near = some(plan.closely)
    if plan.step == "smoke":
        for point in (*near, *some(plan.closely[:1], output_tokens=2)):
            yield point, replace(closely, energy=point == near[0])
        for point in _methods(plan, say):
            yield point, replace(plain, counters=False)
    elif plan.step == "core":
        for point in near:
            yield point, closely
        for point in some(plan.counts):
            if point not in near:
                yield point, plain
        for point in (*some(plan.closely, output_tokens=8), *_methods(plan, say)):
            yield point, plain
        for point in some(plan.closely, batch_sizes=[8]):
            yield point, plain
    else:
        for label in plan.quantised if kind == "cuda" else ():
            for point in some(plan.closely, dtypes=[label], output_tokens=8):
                yield point, replace(closely, counters=False)
        for point in some(plan.counts, batch_sizes=[1, 8]):
            yield point, replace(plain, counters=False, memory=False)


def _methods(plan: CampaignPlan, say: Callable[[str], None]) -> Iterator[Configuration]:
    """Yield every method at its published setting, as far as the model takes it."""
    from token_reduction import list_methods

    for name in list_methods() if plan.methods is None else plan.methods:
        (point,) = grid([plan.model], dtypes=[plan.dtype], methods=[name], keeps=[None],
                        device=plan.device)  # fmt: skip
        try:
            check([point])
        except VlmRooflineError as error:
            say(f"  left out: {name}: {error}")
            continue
        yield point


def _line(record: Measurement) -> str:
    configuration, total = record.configuration, record.stages.get(TOTAL)
    if total is None or total.median_s is None:
        return f"  {configuration.key}: {record.status}: {record.error}"
    bound = {True: "host", False: "device", None: "-"}[total.host_bound]
    return f"  {configuration.key}: {total.median_s * 1e3:.3g} ms, bound by: {bound}"


def check_records(records: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Return what a look at records says: {check, key, ok, found} each.

    A point runs; FLOPs counted on it equal the cost model's; a graph runs the attention of eager mode; in
    a graph the kernels fill the time.
    """
    if not records:
        return [{"check": "runs", "key": "every point", "ok": False, "found": "none was measured"}]
    found: list[dict[str, Any]] = []
    eager = {replace(record.configuration, mode="eager"): record for record in records
             if record.configuration.mode == "eager"}  # fmt: skip

    def note(check: str, record: Measurement, ok: bool, what: Any) -> None:
        found.append({"check": check, "key": record.configuration.key, "ok": ok, "found": what})

    for record in records:
        note("runs", record, record.status == "ok", record.error or record.status)
        if record.status != "ok":
            continue
        for stage, (counted, expected) in _flops(record).items():
            note(f"FLOPs of {stage}", record, counted == expected, [counted, expected])
        prefill = record.stages.get("prefill")
        twin = eager.get(replace(record.configuration, mode="eager"))
        if record.configuration.mode != "cuda-graph" or prefill is None:
            continue
        if twin is not None and record.attention_kernels and twin.attention_kernels:
            same = dict(record.attention_kernels) == dict(twin.attention_kernels)
            note("attention as in eager mode", record, same, dict(record.attention_kernels))
        if prefill.busy_s is not None and prefill.median_s:
            share = prefill.busy_s / prefill.median_s
            # A graph's kernels start one after another, each about a microsecond after the last.
            gaps_s = 1.5e-6 * (prefill.kernels or 0)
            filled = prefill.busy_s + gaps_s > 0.9 * prefill.median_s and share < 1.05
            note("kernels fill the graph", record, filled, round(share, 3))
    return found


def _flops(record: Measurement) -> dict[str, tuple[int, int]]:
    """Return (counted, expected) FLOPs by stage of a run without a method."""
    from costmodel import estimate

    configuration = record.configuration
    counted = {
        stage: data.flops
        for stage, data in record.stages.items()
        if stage != TOTAL and data.flops is not None
    }
    if configuration.method != "none" or not counted:
        return {}
    expected = estimate(
        model_of(configuration.model, record.model_config), "nvidia-h200-sxm-141gb",
        precision=configuration.dtype, visual_tokens=configuration.visual_tokens,
        text_tokens=configuration.text_tokens, batch_size=configuration.batch_size,
        output_tokens=configuration.output_tokens, execution="hf-eager",
    )  # fmt: skip
    return {
        stage: (number, int(expected.stages[stage].flops))
        for stage, number in counted.items()
        if stage in expected.stages
    }
