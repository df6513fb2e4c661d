"""The whole loop in one call: measure the device, calibrate it, run a model, explain the difference.

Everything lands in one folder, and what is there already is not done again:

    <device>.yaml           a measured CPU's own figures (a GPU is found by its name)
    ops.json                micro-benchmarks
    calibration.json        fitted from them, and from nothing else
    runs/                   one record per run, and a profiler pass of two of them
    reconciliation.json     every row
    figures/, report.html   the same for people

The calibration never sees a run, so the errors are those of prediction.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import CalibrationError, InvalidInputError
from hardware_specs.files.reading import show_path
from profiling.reconciling.reconciliation import reconcile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from costmodel.calibration import Calibration
    from hardware_specs import HardwareSpec
    from profiling.measuring.point import Options
    from profiling.microbench.suite import Suite
    from profiling.microbench.table import OpTable
    from profiling.reconciling.reconciliation import Reconciliation
    from profiling.records.measurement import Configuration

#: A CPU is given a size-reduced model by default, a GPU the model itself.
CPU_SCALE = "layers=4,width=1/4"
VISUAL_TOKENS = (576, 384, 288, 192, 144, 64, 16, 1)
#: What reducing methods keep, so that they meet the sweep's own counts.
METHODS = ("divprune", "prumerge", "fastv")
METHOD_TOKENS = (144, 64)


@dataclass(frozen=True)
class LoopPlan:
    """The settings of a loop.

    Attributes:
        device: `cuda`, `cuda:N` or `cpu`.
        model: a shipped name, path or hub id.
        scale: its size reduction; None takes `CPU_SCALE` on a CPU and none on a GPU.
        dtype: of the weights; None takes fp32 on a CPU and bf16 on a GPU.
        visual_tokens: counts of the sweep without a method.
        methods: reducing methods run as well.
        method_tokens: what each of them is asked to keep.
        modes: how the language model is issued.
        text_tokens: per sequence.
        batch_size: sequences.
        output_tokens: decode steps.
        rounds: times each configuration is measured.
        threads: CPU threads: 1, or 0 for all.
        op_rounds: times the micro-benchmarks are run; the median of the rounds counts. None takes 3
            on a CPU, whose neighbours come and go, and 1 on a GPU.
        max_foreign_load: on a CPU, wait before each op while others use more of one processor than
            this; None never waits.
    """

    device: str = "cuda"
    model: str = "llava-1.5-7b"
    scale: str | None = None
    dtype: str | None = None
    visual_tokens: tuple[int, ...] = VISUAL_TOKENS
    methods: tuple[str, ...] = METHODS
    method_tokens: tuple[int, ...] = METHOD_TOKENS
    modes: tuple[str, ...] = ("eager",)
    text_tokens: int = 40
    batch_size: int = 1
    output_tokens: int = 4
    rounds: int = 2
    threads: int = 1
    op_rounds: int | None = None
    max_foreign_load: float | None = None

    def __post_init__(self) -> None:
        """Reject thread counts whose peak is not measured."""
        if self.threads not in (0, 1):
            raise InvalidInputError(
                f"threads={self.threads}: a CPU's peak is measured for 1 thread and for all (0)"
            )

    @property
    def on_cpu(self) -> bool:
        """Whether the device is a CPU."""
        return self.device.partition(":")[0] == "cpu"

    @property
    def full_model(self) -> str:
        """The model's name with its scale."""
        from profiling.subject.models import named

        scale = self.scale
        if scale is None and self.on_cpu and "@" not in self.model:
            scale = CPU_SCALE
        return named(self.model, scale)

    @property
    def label(self) -> str:
        """The dtype."""
        return self.dtype or ("fp32" if self.on_cpu else "bf16")


@dataclass(frozen=True)
class LoopResult:
    """The results of a loop.

    Attributes:
        result: the reconciliation.
        folder: where everything is.
        report: the HTML file.
    """

    result: Reconciliation
    folder: Path
    report: Path


def run_loop(
    plan: LoopPlan,
    folder: str | Path,
    *,
    options: Options | None = None,
    suite: Suite | None = None,
    on_step: Callable[[str, int, int], None] | None = None,
) -> LoopResult:
    """Measure, calibrate, run, reconcile and report into a folder; go on where it stopped.

    Args:
        plan: the ops, models and settings to run.
        folder: created when missing.
        options: how thoroughly each run is measured.
        suite: which micro-benchmarks run.
        on_step: is told (what is being done, done, total).

    Raises:
        OutputError: the folder cannot be written.
        VlmRooflineError: no such device, model or method; too little could be measured.
    """
    from hardware_specs.files.writing import prepare_folder
    from profiling.measuring.campaign import torch_threads

    check_plan(plan)
    target = prepare_folder(folder)
    tell = on_step or (lambda _what, _done, _total: None)
    # Micro-benchmarks and runs are alike.
    with torch_threads(plan.device, plan.threads):
        ops = _measured_ops(plan, target, suite, tell)
        hardware = _device(plan, target, ops, tell)
        calibration = _calibration(ops, hardware, target, tell)
        _measured_runs(plan, target / "runs", options, tell)
    tell("reconciling", 0, 1)
    result = reconcile(target / "runs", calibration, hardware=hardware)
    report = write_report(result, target)
    tell("reconciling", 1, 1)
    return LoopResult(result, target, report)


def check_plan(plan: LoopPlan) -> None:
    """Refuse a plan that cannot work, before minutes are spent on its first steps.

    Raises:
        InvalidInputError: a number out of its range.
        VlmRooflineError: as `profiling.measuring.planning.check`.
    """
    from profiling.measuring.planning import check, check_rounds

    check_rounds(plan.rounds)
    check_rounds(1 if plan.op_rounds is None else plan.op_rounds)
    check(configurations_of(plan))


def write_report(result: Reconciliation, folder: Path) -> Path:
    """Write a reconciliation's JSON, figures and report into a folder; return the report's path."""
    from hardware_specs.files.writing import write_file
    from profiling.report import reconciliation_figures, save_figures
    from profiling.report.report import report_html

    document = json.dumps(result.to_dict(), indent=1, allow_nan=False)
    write_file(folder / "reconciliation.json", document + "\n")
    figures = reconciliation_figures(result)
    paths = save_figures(figures, folder / "figures")
    drawn = {path.stem: path.read_bytes() for path in paths}
    report = folder / "report.html"
    write_file(report, report_html(result, figures, svg=drawn))
    return report


def _measured_ops(
    plan: LoopPlan, folder: Path, suite: Suite | None, tell: Callable[[str, int, int], None]
) -> OpTable:
    from profiling.microbench.suite import run_microbenchmarks
    from profiling.microbench.table import read_op_table

    path = folder / "ops.json"
    if path.exists():
        return read_op_table(path)
    rounds = plan.op_rounds or (3 if plan.on_cpu else 1)
    tables = []
    for done_rounds in range(rounds):

        def show(done: int, total: int, before: int = done_rounds) -> None:
            wait_for_quiet(plan.max_foreign_load)
            tell("timing single ops", before * total + done, rounds * total)

        tables.append(
            run_microbenchmarks(
                plan.device, model=plan.full_model, dtypes=(plan.label,), suite=suite,
                on_progress=show,
            )
        )  # fmt: skip
    ops = joined(tables)
    ops.write(path)
    return ops


def joined(tables: Sequence[OpTable]) -> OpTable:
    """Return several rounds of micro-benchmarks as one table: all rows, the best ceilings.

    Args:
        tables: at least one, of one device.
    """
    first = tables[0]
    names = dict.fromkeys(name for table in tables for name in table.ceilings)
    return replace(
        first,
        rows=tuple(row for table in tables for row in table.rows),
        ceilings={name: max(table.ceilings.get(name, 0.0) for table in tables) for name in names},
        skipped={name: reason for table in tables for name, reason in table.skipped.items()},
    )


def wait_for_quiet(most: float | None, *, window_s: float = 0.25, patience_s: float = 20.0) -> None:
    """Wait until other processes use at most a share of one processor, or patience ends.

    Args:
        most: the largest share of one processor; None does not wait.
        window_s: seconds over which the load is measured.
        patience_s: longest wait in seconds.
    """
    if most is None:
        return
    from profiling.instruments.watch import HostLoad

    load, started = HostLoad(), time.perf_counter()
    while time.perf_counter() - started < patience_s:
        load.begin()
        time.sleep(window_s)
        share = load.foreign_share()
        if share is None or share <= most:
            return


def _device(
    plan: LoopPlan, folder: Path, ops: OpTable, tell: Callable[[str, int, int], None]
) -> HardwareSpec:
    """Return the GPU by its name, or the CPU by measuring it once."""
    from hardware_specs import detect_hardware, load_hardware, measure_cpu, save_hardware

    if not plan.on_cpu:
        return detect_hardware(plan.device.partition(":")[0])
    path = folder / "cpu-measured.yaml"
    if path.exists():
        return load_hardware(path)
    tell("measuring the processor", 0, 1)
    spec = measure_cpu(tuple(dict.fromkeys(("fp32", plan.label))))
    if plan.threads == 1:
        spec = one_thread(spec)
    spec = at_least(spec, ops.ceilings)
    save_hardware(spec, path)
    tell("measuring the processor", 1, 1)
    return spec


def one_thread(spec: HardwareSpec) -> HardwareSpec:
    """Return a measured CPU as one of its threads sees it.

    Args:
        spec: from `hardware_specs.measure_cpu`.

    Raises:
        InvalidInputError: a device whose single-thread rates were not measured.
    """
    rates = {item.dtype: item.max for item in spec.measured if item.what == "gemm_one_thread"}
    peaks = {
        key: rate for key in spec.peaks if (rate := rates.get(key.partition(".")[0])) is not None
    }
    if not peaks:
        raise InvalidInputError(f"{spec.id} has no rate of a single thread; measure it again")
    note = "peaks and units are those of one thread"
    return replace(spec, peaks=peaks, sm_count=1, notes=(*spec.notes, note))


def at_least(spec: HardwareSpec, ceilings: Any) -> HardwareSpec:
    """Return a measured CPU whose peaks are no lower than the best single op reached.

    A probe of a second or two may meet a busy moment; a peak is the best rate ever seen.

    Args:
        spec: a measured CPU.
        ceilings: best rates of the micro-benchmarks, by name.
    """
    peaks = {
        key: max(rate, ceilings.get(f"peak_flop_per_s.{key.partition('.')[0]}", 0.0))
        for key, rate in spec.peaks.items()
    }
    seen = [ceilings.get(name, 0.0) for name in ("copy_bytes_per_s", "pointwise_bytes_per_s")]
    bandwidth = max(spec.bandwidth_bytes_per_s, *seen)
    return replace(spec, peaks=peaks, bandwidth_bytes_per_s=bandwidth)


def _calibration(
    ops: OpTable, hardware: HardwareSpec, folder: Path, tell: Callable[[str, int, int], None]
) -> Calibration:
    from costmodel.calibration import Calibration, fit_calibration

    path = folder / "calibration.json"
    if path.exists():
        return Calibration.load(path)
    tell("fitting the calibration", 0, 1)
    environment = ops.environment
    software = ", ".join(
        f"{name} {environment[name]}" for name in ("torch", "cuda") if environment.get(name)
    )
    try:
        found = fit_calibration(ops.frame(), hardware, software=software, date=ops.started_at[:10])
    except CalibrationError as error:
        raise CalibrationError(
            f"{error}; what was measured is in {show_path(folder / 'ops.json')}: remove it, and the loop "
            "measures again"
        ) from error
    found.save(path)
    tell("fitting the calibration", 1, 1)
    # What is reported must follow from the files: the file rounds its numbers.
    return Calibration.load(path)


def _measured_runs(
    plan: LoopPlan, folder: Path, options: Options | None, tell: Callable[[str, int, int], None]
) -> None:
    from profiling.measuring.campaign import run_campaign
    from profiling.measuring.kernel_pass import run_kernel_passes

    configurations = configurations_of(plan)
    total = [len(configurations) * plan.rounds, 0]

    def on_plan(points: int, done: int) -> None:
        total[:] = [points, done]

    for _ in run_campaign(
        configurations, folder, rounds=plan.rounds, options=options, threads=None, on_plan=on_plan
    ):
        total[1] += 1
        tell("running the model", total[1], total[0])
    eager = [item for item in configurations if item.mode == "eager" and item.method == "none"]
    passes = list(dict.fromkeys((eager[0], eager[-1]))) if eager else []
    for done, _ in enumerate(run_kernel_passes(passes, folder), start=1):
        tell("profiling ops", done, len(passes))


def configurations_of(plan: LoopPlan) -> list[Configuration]:
    """Return the runs of a plan: the sweep without a method, then every method.

    >>> plan = LoopPlan(device="cpu", visual_tokens=(576, 64), methods=("divprune",), method_tokens=(64,))
    >>> [(run.method, run.visual_tokens) for run in configurations_of(plan)]
    [('none', 576), ('none', 64), ('divprune', 64)]
    """
    from profiling.measuring.planning import grid

    def runs(
        methods: Sequence[str], counts: Sequence[int], modes: Sequence[str]
    ) -> list[Configuration]:
        return grid(
            [plan.full_model],
            dtypes=(plan.label,),
            visual_tokens=counts,
            methods=methods,
            batch_sizes=(plan.batch_size,),
            modes=modes,
            text_tokens=plan.text_tokens,
            output_tokens=plan.output_tokens,
            device=plan.device,
        )

    found = runs(("none",), plan.visual_tokens, plan.modes)
    if plan.methods:
        # A method's own work is not captured in a graph, so it runs eagerly.
        found += runs(plan.methods, plan.method_tokens, ("eager",))
    return found
