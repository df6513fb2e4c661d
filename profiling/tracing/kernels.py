"""A profiler pass of its own: kernel time by module and op, joined through correlation ids.

Every module's forward is wrapped in a named range, so that each kernel finds its module around its
launch (`profiling.tracing.linking`).

The profiler slows the host by a quarter and more: its durations of kernels are good, its total time
is not, and no sample of a measurement ever comes from here.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import re
import tempfile
import warnings
from collections import Counter, defaultdict
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costmodel.quantities import STAGES
from hardware_specs.files.writing import write_file
from profiling.devices.device import open_device
from profiling.records.measurement import TOTAL
from profiling.tracing.events import read_events
from profiling.tracing.linking import MODULE_PREFIX, STAGE_PREFIX, links
from profiling.tracing.op_names import op_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd
    from torch import nn

    from profiling.subject.execution import Execution
    from profiling.tracing.events import Trace
    from profiling.tracing.linking import Visit

#: Stands for the process in a trace that is kept; no device has so high a number.
_PROCESS = 1_000_000
#: In a replayed graph no op is known; kernels of fused attention say what they are.
_ATTENTION_KERNEL = re.compile(r"fmha|flash|sdpa|attention", re.IGNORECASE)
#: Templates make names of kernels thousands of characters long.
_LONGEST_NAME = 120


@dataclass(frozen=True, slots=True)
class KernelRecord:
    """One kernel (or CPU op) with its module, op and stage.

    Args:
        kernel: the kernel's name.
        time_s: its duration on the device.
        stage: the stage, `total` between stages.
        module: the innermost module's path.
        aten: the outermost op inside that module.
        op: the cost model's name.
        op_class: the cost model's class.
    """

    kernel: str
    time_s: float
    stage: str
    module: str
    aten: str
    op: str
    op_class: str


@dataclass(slots=True)
class _Ranges:
    """A stage observer that opens profiler ranges."""

    _open: dict[str, Any] = field(default_factory=dict)

    def begin(self, stage: str) -> None:
        import torch

        self._open[stage] = torch.profiler.record_function(STAGE_PREFIX + stage)
        self._open[stage].__enter__()

    def end(self, stage: str) -> None:
        self._open.pop(stage).__exit__(None, None, None)


@contextmanager
def module_ranges(model: nn.Module) -> Iterator[None]:
    """Wrap every module's forward in a profiler range named after its path."""
    import torch

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if not name:
                continue
            open_ranges: list[Any] = []

            def before(_m: Any, _i: Any, name: str = name, ranges: list[Any] = open_ranges) -> None:
                ranges.append(torch.profiler.record_function(MODULE_PREFIX + name))
                ranges[-1].__enter__()

            def after(_m: Any, _i: Any, _o: Any, ranges: list[Any] = open_ranges) -> None:
                ranges.pop().__exit__(None, None, None)

            stack.callback(module.register_forward_pre_hook(before).remove)
            stack.callback(module.register_forward_hook(after).remove)
        yield


def trace_run(execution: Execution, path: str | Path | None = None) -> list[KernelRecord]:
    """Run one repetition under the profiler and return its kernels.

    Args:
        execution: a model with its inputs.
        path: where to keep the Chrome trace (`.json` or `.json.gz`); nowhere when None.

    Raises:
        OutputError: the trace cannot be written.
    """
    device = open_device(execution.configuration.device)
    clock = device.clock()
    execution.run()
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        # torch 2.11 says so of every profiler without a schedule; there is one cycle here.
        cycle = "Warning: Profiler clears events at the end of each cycle"
        warnings.filterwarnings("ignore", cycle)
        stack.enter_context(module_ranges(execution.model))
        profiler = stack.enter_context(device.profiler())
        execution.run(_Ranges())
        clock.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        # The profiler reports a failed export on stderr only, so it never writes where it matters.
        raw = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(raw))
        if path is not None:
            content = anonymous(raw.read_bytes())
            target = Path(path)
            write_file(target, gzip.compress(content) if target.suffix == ".gz" else content)
        return read_trace(raw)


def anonymous(trace: bytes) -> bytes:
    """Return a Chrome trace without the machine's name and the process's number."""
    document = json.loads(trace)
    for key in ("host_name", "traceName", "trace_id"):
        document.pop(key, None)
    own = os.getpid()
    for event in document["traceEvents"]:
        # The main thread bears the process's number, and labels repeat it.
        for held in (event, event.get("args") or {}) if event.get("ph") == "M" else (event,):
            for key, value in held.items():
                if value == own:
                    held[key] = _PROCESS
                elif isinstance(value, str) and str(own) in value:
                    held[key] = value.replace(str(own), str(_PROCESS))
    return json.dumps(document, separators=(",", ":")).encode()


def read_trace(path: str | Path) -> list[KernelRecord]:
    """Return the kernels of a Chrome trace that `trace_run` wrote.

    Args:
        path: a `.json` or `.json.gz` trace.

    Raises:
        InvalidFileError: not such a trace.
    """
    return attribute(read_events(path))


def attribute(trace: Trace) -> list[KernelRecord]:
    """Assign device work to the module and op that launched it."""
    return [
        _record(link.stack, link.work.name, link.work.length_us * 1e-6)
        for link in links(trace)
        if link.launch is not None
    ]


def _record(stack: tuple[Visit, ...], kernel: str, time_s: float) -> KernelRecord:
    stage, module, aten = stage_of(stack) or TOTAL, "", kernel
    visit: Visit | None = None
    for item in stack:
        name = item.event.name
        if item.is_range:
            aten = kernel
            if name.startswith(MODULE_PREFIX):
                module, visit = name.removeprefix(MODULE_PREFIX), item
        elif aten == kernel:
            aten = name
    repeat = max(0, visit.calls[aten] - 1) if visit is not None else 0
    op, op_class = op_of(module, aten, stage, repeat=repeat)
    if stage == "reduction":
        op = f"reduction.{op}"
    return KernelRecord(kernel, time_s, stage, module, aten, op, op_class)


def stage_of(stack: Sequence[Visit]) -> str | None:
    """Return the innermost stage among the ranges around a launch; None outside of all.

    The reduction may sit inside another stage; the inner one is what it is.
    """
    found = (
        visit.event.name.removeprefix(STAGE_PREFIX)
        for visit in reversed(stack)
        if visit.is_range and visit.event.name.startswith(STAGE_PREFIX)
    )
    return next((stage for stage in found if stage in STAGES), None)


@dataclass(frozen=True, slots=True)
class StageWork:
    """The device's work in one stage: its kernels, and the seconds that they ran, None if unknown."""

    kernels: int
    busy_s: float | None


def work_by_stage(records: Sequence[KernelRecord]) -> dict[str, StageWork]:
    """Return kernels and their summed seconds by stage; `total` is everything but the decode.

    Args:
        records: what `trace_run` returned.
    """
    times: dict[str, list[float]] = defaultdict(list)
    for record in records:
        times[record.stage].append(record.time_s)
    times[TOTAL] = [item for stage, found in times.items() if stage != "decode" for item in found]
    return {stage: StageWork(len(found), math.fsum(found)) for stage, found in times.items()}


def attention_kernels(records: Sequence[KernelRecord]) -> dict[str, int]:
    """Return the kernels that ran attention in the prefill, each with how often it was launched.

    They tell which implementation (flash, cuDNN, efficient, plain products) was timed. A fused one says by
    its name what it is, also in a replayed graph, where no op is known; what its op launched besides,
    such as a fill, is left out. Where none does, all kernels of the op are given.

    Args:
        records: what `trace_run` returned.

    >>> from dataclasses import replace
    >>> flash = KernelRecord("flash_fwd_kernel", 1e-5, "prefill", "", "", "attention", "attention_prefill")
    >>> attention_kernels([flash, replace(flash, kernel="FillFunctor")])
    {'flash_fwd_kernel': 1}
    """
    prefill = [record for record in records if record.stage == "prefill"]
    fused = [record for record in prefill if _ATTENTION_KERNEL.search(record.kernel)]
    ran = fused or [record for record in prefill if record.op_class == "attention_prefill"]
    return dict(Counter(record.kernel[:_LONGEST_NAME] for record in ran))


def op_table(records: Sequence[KernelRecord]) -> pd.DataFrame:
    """Return device time and kernels by stage and op, the longest first in each stage.

    Args:
        records: what `trace_run` returned.
    """
    import pandas as pd

    groups: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for record in records:
        groups[(record.stage, record.op, record.op_class)].append(record.time_s)
    total_s = sum(record.time_s for record in records) or 1.0
    rows = [
        {
            "stage": stage,
            "name": op,
            "op_class": op_class,
            "kernels": len(times),
            "time_s": sum(times),
            "share": sum(times) / total_s,
        }
        for (stage, op, op_class), times in groups.items()
    ]
    order = {stage: index for index, stage in enumerate((*STAGES, TOTAL))}
    rows.sort(key=lambda row: (order[str(row["stage"])], -float(str(row["time_s"]))))
    return pd.DataFrame(rows)
