"""The micro-benchmark suite of a device: products, attentions, streams, ceilings, the host's share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from costmodel.calibration.chosen import chosen_products
from costmodel.models import load_model
from hardware_specs.errors import UnsupportedError
from profiling.devices.device import open_device
from profiling.instruments.environment import describe_environment
from profiling.instruments.nvml import open_monitor
from profiling.measuring.point import first_line, is_out_of_memory, release_memory
from profiling.microbench.cases import (
    GEMM_ROWS,
    GEMM_ROWS_FIRST,
    GEMM_ROWS_SHORT,
    attention_cases,
    backend_cases,
    conv_case,
    gemm_case,
    gemm_cases,
    unaligned_cases,
)
from profiling.microbench.streams import ladder_cases, norm_cases, stream_case
from profiling.microbench.table import OpTable
from profiling.microbench.timing import (
    SUSTAINED_S,
    OpCase,
    host_seconds,
    keep_busy,
    statistics,
    time_case,
)
from profiling.subject.library_workarounds import products_stay_unprinted
from profiling.subject.models import QUANTISED_DTYPES, canonical_dtype
from profiling.subject.quantisation import UNTYPICAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from costmodel.models import ModelConfig
    from profiling.devices.interface import Clock, Device


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
        burn_in_s: keep the device busy this long first: an idle one clocks low.
        sustained_s: how long an op runs before its time counts as that of a sustained load; 0 leaves
            such rows out.
        chosen: products beside the model's own, spread over all sizes, for the library's choice of kernels.
    """

    rows: tuple[int, ...]
    batches: tuple[int, ...]
    max_flops: float
    max_bytes: float
    peak_side: int
    budget_s: float
    total_s: float
    burn_in_s: float = 0.0
    sustained_s: float = 0.0
    chosen: int = 0


#: A minute of a GPU, of which the first seconds go to ceilings, sustained loads and the products and
#: attentions without which there is no fit.
CUDA_SUITE = Suite(GEMM_ROWS, (1, 8), 4e12, 1 << 30, 8192, 0.03, 60.0, 1.5, SUSTAINED_S, 256)
CPU_SUITE = Suite(GEMM_ROWS_SHORT, (1,), 2.5e10, 1 << 27, 1536, 0.1, 300.0)


def default_suite(device: str) -> Suite:
    """Return the suite of a kind of device.

    Args:
        device: `cuda`, `cuda:N` or `cpu`.

    >>> default_suite("cpu").total_s
    300.0
    """
    return CUDA_SUITE if open_device(device).kind == "cuda" else CPU_SUITE


def run_microbenchmarks(
    device: str = "cuda",
    *,
    model: str = "llava-1.5-7b",
    dtypes: Sequence[str] = ("bf16",),
    suite: Suite | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    on_row: Callable[[dict[str, Any]], None] | None = None,
    known: Sequence[Mapping[str, Any]] = (),
) -> OpTable:
    """Time the ops a model is made of, and the ceilings of the device.

    A device that is lost on the way ends the suite; the table holds what was measured until then.

    Args:
        device: `cuda`, `cuda:N` or `cpu`.
        model: whose widths to use, possibly size-reduced.
        dtypes: floating and quantised labels; attentions and streams run in the floating ones.
        suite: how much; a default for the device.
        on_progress: called with (done, total).
        on_row: called with each row as soon as it is measured.
        known: rows measured before; those of this device are taken over and not measured again.

    Raises:
        DeviceUnavailableError: no such device.
        UnknownModelError: no such model.
        UnknownPrecisionError: no such dtype.
    """
    labels = [canonical_dtype(dtype) for dtype in dtypes]
    found = open_device(device)
    with found.current():
        bench = _Bench(found, suite or default_suite(device), on_row, [dict(row) for row in known])
        return bench.run(load_model(model), labels, on_progress)


class _Bench:
    """One run of a suite."""

    def __init__(
        self,
        device: Device,
        suite: Suite,
        on_row: Callable[[dict[str, Any]], None] | None,
        rows: list[dict[str, Any]],
    ) -> None:
        self.device, self.suite, self.on_row = device, suite, on_row
        self.clock = device.clock()
        self.skipped: dict[str, str] = {}
        self.monitor = open_monitor(device.name)
        self.environment = describe_environment(device.name, self.monitor)
        self.begun_s = self.clock.now_s()
        name = self.environment["device_name"]
        self.rows = [row for row in rows if row.get("device") == name]
        self.known = {_identity(row) for row in self.rows}
        #: Seconds of the longest case so far: the next one may take as long.
        self.longest_s = 0.0

    def run(
        self,
        shape: ModelConfig,
        labels: Sequence[str],
        on_progress: Callable[[int, int], None] | None,
    ) -> OpTable:
        """Measure every case until the time is used up."""
        import torch

        started_at = datetime.now(UTC).isoformat(timespec="seconds")
        cases = list(self._cases(shape, labels))
        with torch.no_grad():
            try:
                self._begin(labels)
            except (MemoryError, RuntimeError) as error:
                self._leave_out("host", error)
            for done, (case, sustained_s) in enumerate(cases):
                if on_progress is not None:
                    on_progress(done, len(cases))
                self._time(case, sustained_s)
        return OpTable(
            rows=tuple(self.rows),
            environment=self.environment,
            ceilings=ceilings(self.rows),
            skipped=self.skipped,
            started_at=started_at,
        )

    def _keep(self, row: dict[str, Any]) -> None:
        row = {"device": self.environment["device_name"], **row}
        self.rows.append(row)
        if self.on_row is not None:
            self.on_row(row)

    def _time(self, case: OpCase, sustained_s: float) -> None:
        load = "sustained" if sustained_s else "burst"
        name = f"{case.op_class} {case.dtype} {case.sizes}" + (f" {load}" if sustained_s else "")
        identity = {"op_class": case.op_class, "dtype": case.dtype, **case.sizes, "load": load}
        if _identity(identity) in self.known:
            return
        if "lost" in self.skipped:
            return
        started_s = self.clock.now_s()
        if started_s - self.begun_s + self.longest_s > self.suite.total_s:
            self.skipped[name] = f"the suite's {self.suite.total_s:g} s were used up"
            return
        reason = UNTYPICAL.get(case.dtype) if self.device.kind == "cuda" else None
        if reason is not None:
            self.skipped[name] = reason
            return
        try:
            with products_stay_unprinted(case.dtype):
                row = time_case(
                    case, self.device, budget_s=self.suite.budget_s, sustained_s=sustained_s
                )
            self._keep(row)
            self.longest_s = max(self.longest_s, self.clock.now_s() - started_s)
            return
        except UnsupportedError as error:
            self.skipped[name] = str(error)
        except (MemoryError, NotImplementedError, RuntimeError) as error:
            self._leave_out(name, error)
        # Only after a failure: what a case held is free by itself, and collecting takes its time.
        release_memory(self.device.name)

    def _leave_out(self, name: str, error: BaseException) -> None:
        self.skipped[name] = first_line(error)
        if not is_out_of_memory(error) and not self.device.is_alive():
            # Every further call would fail, and its message would blame the op.
            self.skipped["lost"] = f"the CUDA context was lost at {name}: {first_line(error)}"

    def _begin(self, labels: Sequence[str]) -> None:
        """Keep the device busy until its clocks are up, and time the host."""
        if self.suite.burn_in_s:
            side, place = self.suite.peak_side, self.device.place
            case = gemm_case(side, side, side, _floating(labels)[0], place)
            (product,) = case.prepare(1)
            keep_busy(product, self.clock, self.suite.burn_in_s)
        if not any(row["op_class"] == "host" for row in self.rows):
            for row in _host_rows(self.clock, self.device):
                self._keep(row)

    def _cases(self, shape: ModelConfig, labels: Sequence[str]) -> Iterator[tuple[OpCase, float]]:
        """Yield cases in order of worth, each with the seconds of load before it."""
        suite, place, floating = self.suite, self.device.place, _floating(labels)
        side, width = suite.peak_side, shape.text.hidden_size
        largest = int(suite.max_bytes) // 2
        peaks = [gemm_case(side, side, side, label, place) for label in floating]
        peaks += [
            stream_case(kind, largest, floating[0], place, width=width)
            for kind in ("copy", "pointwise")
        ]
        for case in peaks:
            yield case, 0.0
        if suite.sustained_s:
            n, k = shape.text.intermediate_size, width
            for case in (*peaks, gemm_case(616, n, k, floating[0], place)):
                yield case, suite.sustained_s
        first = [m for m in suite.rows if m in GEMM_ROWS_FIRST]
        for label in labels:
            for case in gemm_cases(shape, label, place, first, max_flops=suite.max_flops):
                yield case, 0.0
        for case in self._others(shape, floating):
            yield case, 0.0
        rest = [m for m in suite.rows if m not in GEMM_ROWS_FIRST]
        for label in labels:
            for case in gemm_cases(shape, label, place, rest, max_flops=suite.max_flops):
                yield case, 0.0
        for m, n, k in chosen_products(suite.chosen).tolist():
            for label in labels:
                if 2 * m * n * k <= suite.max_flops:
                    yield gemm_case(m, n, k, label, place), 0.0

    def _others(self, shape: ModelConfig, floating: Sequence[str]) -> Iterator[OpCase]:
        suite, place = self.suite, self.device.place
        for label in floating:
            yield from attention_cases(
                shape, label, place, batches=suite.batches, max_flops=suite.max_flops
            )
            yield from ladder_cases(
                label, place, width=shape.text.hidden_size, max_bytes=suite.max_bytes
            )
            if shape.vision is not None:
                yield from (conv_case(shape, images, label, place) for images in (1, 2, 5))
            if self.device.kind == "cuda":
                yield from backend_cases(shape, label, place, max_flops=suite.max_flops)
            for case in (*norm_cases(shape, label, place), *unaligned_cases(shape, label, place)):
                if case.traffic_bytes <= 2 * suite.max_bytes and case.flops <= suite.max_flops:
                    yield case


def _floating(labels: Sequence[str]) -> list[str]:
    return [label for label in labels if label not in QUANTISED_DTYPES] or ["bf16"]


#: Columns that are measured: what is left of a row names its case.
_MEASURED = frozenset(
    {"device", "flops", "bytes", "time_s", "min_s", "dispersion", "samples", "samples_s", "cache",
     "weight_copies", "calls", "graph"}
)  # fmt: skip


def _identity(row: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted((name, row[name]) for name in row if name not in _MEASURED))


def ceilings(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the best rates among measured rows, independent of the datasheet.

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


def _host_rows(clock: Clock, device: Device) -> list[dict[str, Any]]:
    """Time the host: one launch, one kernel inside a module stack, one wait for an idle device."""
    import torch

    tiny = torch.zeros(1, device=device.place)
    launch = host_seconds(lambda: tiny.add_(1.0), 200, clock)
    waits = []
    for _ in range(30):
        begin = clock.now_s()
        float(tiny)
        waits.append(clock.now_s() - begin)
    module = _module_kernel_seconds(clock, device)
    rows = [("launch", launch), ("module_kernel", module), ("synchronise", waits)]
    return [
        {"op_class": "host", "dtype": "any", "name": name, **statistics(samples)}
        for name, samples in rows
    ]


def _module_kernel_seconds(clock: Clock, device: Device) -> list[float]:
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
    with device.place:
        model = cls._from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa").eval()
        ids = torch.ones(1, 8, dtype=torch.long)

    def run() -> Any:
        return model(input_ids=ids, use_cache=True, logits_to_keep=1)

    run()
    with Ledger(()) as ledger:
        run()
    return [item / ledger.kernels for item in host_seconds(run, 1, clock)]
