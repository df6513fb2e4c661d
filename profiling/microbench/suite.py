"""The micro-benchmark suite of a device: products, attentions, streams, ceilings, the host's share."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from profiling.devices.clocks import Clock, clock_for
from profiling.instruments.environment import describe_environment
from profiling.instruments.nvml import open_monitor
from profiling.measuring.point import first_line, is_out_of_memory, release_memory
from profiling.microbench.cases import (
    GEMM_ROWS,
    GEMM_ROWS_SHORT,
    attention_cases,
    conv_case,
    gemm_case,
    gemm_cases,
    ladder_cases,
    stream_case,
)
from profiling.microbench.table import OpTable
from profiling.microbench.timing import OpCase, host_seconds, statistics, time_case
from profiling.subject.models import QUANTISED_DTYPES, canonical_dtype, model_config

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True)
class Suite:
    """The extent of the suite.

    Args:
        rows: row counts m of the products.
        batches: batch sizes of the attentions.
        max_flops: largest single op.
        max_bytes: largest operand of a stream.
        peak_side: side of the square product that shows the peak.
        budget_s: measured seconds per op.
        total_s: give up on what is left after this long; recorded as skipped.
    """

    rows: tuple[int, ...]
    batches: tuple[int, ...]
    max_flops: float
    max_bytes: float
    peak_side: int
    budget_s: float
    total_s: float


CUDA_SUITE = Suite(GEMM_ROWS, (1, 8), 4e12, 1 << 30, 8192, 0.05, 180.0)
CPU_SUITE = Suite(GEMM_ROWS_SHORT, (1,), 2.5e10, 1 << 27, 1536, 0.1, 300.0)


def run_microbenchmarks(
    device: str = "cuda",
    *,
    model: str = "llava-1.5-7b",
    dtypes: Sequence[str] = ("bf16",),
    suite: Suite | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> OpTable:
    """Time the ops a model is made of, and the ceilings of the device.

    Args:
        device: `cuda`, `cuda:N` or `cpu`.
        model: whose widths to use, possibly size-reduced.
        dtypes: floating and quantised labels; attentions and streams run in the floating ones.
        suite: how much; a default for the device.
        on_progress: called with (done, total).

    Raises:
        DeviceUnavailableError: no such device.
        UnknownModelError: no such model.
        UnknownPrecisionError: no such dtype.
    """
    import torch

    labels = [canonical_dtype(dtype) for dtype in dtypes]
    clock = clock_for(device)
    suite = suite or (CUDA_SUITE if clock.asynchronous else CPU_SUITE)
    monitor = open_monitor(device)
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    started = time.perf_counter()
    rows: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    cases = _cases(model, labels, device, suite)
    with torch.no_grad():
        for done, case in enumerate(cases):
            if on_progress is not None:
                on_progress(done, len(cases))
            name = f"{case.op_class} {case.dtype} {case.sizes}"
            if time.perf_counter() - started > suite.total_s:
                skipped[name] = f"the suite's {suite.total_s:g} s were used up"
                continue
            row = _timed(case, clock, suite, device, skipped, name)
            if row is not None:
                rows.append(row)
        rows += _host_rows(clock, device)
    environment = describe_environment(device, monitor)
    return OpTable(
        rows=tuple({"device": environment["device_name"], **row} for row in rows),
        environment=environment,
        ceilings=ceilings(rows),
        skipped=skipped,
        started_at=started_at,
    )


def _timed(
    case: OpCase, clock: Clock, suite: Suite, device: str, skipped: dict[str, str], name: str
) -> dict[str, Any] | None:
    from hardware_specs.errors import UnsupportedError

    try:
        return time_case(case, clock, budget_s=suite.budget_s)
    except UnsupportedError as error:
        skipped[name] = str(error)
    except (MemoryError, NotImplementedError, RuntimeError) as error:
        if (
            isinstance(error, RuntimeError)
            and "CUDA error" in str(error)
            and not is_out_of_memory(error)
        ):
            raise
        skipped[name] = first_line(error)
    # Only after a failure: what a case held is free by itself, and collecting takes its time.
    release_memory(device)
    return None


def _cases(model: str, labels: Sequence[str], device: str, suite: Suite) -> list[OpCase]:
    shape = model_config(model)
    floating = [label for label in labels if label not in QUANTISED_DTYPES] or ["bf16"]
    cases: list[OpCase] = []
    # Ceilings first: they matter most should the time run out.
    for label in floating:
        side = suite.peak_side
        cases.append(gemm_case(side, side, side, label, device))
    largest = int(suite.max_bytes) // 2
    cases += [
        stream_case(kind, largest, floating[0], device, width=shape.text.hidden_size)
        for kind in ("copy", "pointwise")
    ]
    for label in floating:
        cases += ladder_cases(
            label, device, width=shape.text.hidden_size, max_bytes=suite.max_bytes
        )
        cases += attention_cases(
            shape, label, device, batches=suite.batches, max_flops=suite.max_flops
        )
        if shape.vision is not None:
            cases += [conv_case(shape, images, label, device) for images in (1, 2, 5)]
    for label in labels:
        cases += gemm_cases(shape, label, device, suite.rows, max_flops=suite.max_flops)
    return cases


def ceilings(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the best rates among measured rows, independent of the datasheet.

    Args:
        rows: the rows of an op table.

    >>> ceilings([{"op_class": "gemm", "dtype": "bf16", "flops": 8, "bytes": 1, "time_s": 2.0}])
    {'peak_flop_per_s.bf16': 4.0}
    """
    best: dict[str, float] = {}
    for row in rows:
        if row["op_class"] == "gemm":
            name, rate = f"peak_flop_per_s.{row['dtype']}", row["flops"] / row["time_s"]
        elif row["op_class"] in ("copy", "pointwise") and row["bytes"] >= 1 << 27:
            name, rate = f"{row['op_class']}_bytes_per_s", row["bytes"] / row["time_s"]
        else:
            continue
        best[name] = max(best.get(name, 0.0), rate)
    return best


def _host_rows(clock: Clock, device: str) -> list[dict[str, Any]]:
    """Time the host: one launch, one kernel inside a module stack, one wait for an idle device."""
    import torch

    tiny = torch.zeros(1, device=device)
    launch = host_seconds(lambda: tiny.add_(1.0), 200, clock)
    waits = []
    for _ in range(30):
        begin = time.perf_counter()
        float(tiny)
        waits.append(time.perf_counter() - begin)
    module = _module_kernel_seconds(clock, device)
    rows = [("launch", launch), ("module_kernel", module), ("synchronise", waits)]
    return [
        {"op_class": "host", "dtype": "any", "name": name, **statistics(samples)}
        for name, samples in rows
    ]


def _module_kernel_seconds(clock: Clock, device: str) -> list[float]:
    """Return the host's seconds per kernel inside `transformers`' own decoder layers.

    A model too narrow to keep any device busy, so that its time is the host's alone.
    """
    import torch

    from profiling.counting.ledger import Ledger
    from profiling.subject.libraries import transformers_library
    from profiling.subject.models import model_class

    config = transformers_library().LlamaConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=8, num_attention_heads=2,
        num_key_value_heads=2, vocab_size=64, max_position_embeddings=64,
    )  # fmt: skip
    cls: Any = model_class(config)
    with torch.device(device):
        model = cls._from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa").eval()
        ids = torch.ones(1, 8, dtype=torch.long)

    def run() -> Any:
        return model(input_ids=ids, use_cache=True, logits_to_keep=1)

    run()
    with Ledger(()) as ledger:
        run()
    return [item / ledger.kernels for item in host_seconds(run, 1, clock)]
