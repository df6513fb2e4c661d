"""What `estimate` answers with: costs by stage, totals, memory, and the JSON document of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

from costmodel.parallel.degrees import Parallel
from costmodel.parallel.exchange import COLLECTIVES, is_collective
from costmodel.quantities import COST_KEYS, MEMORY_KEYS, STAGES, traffic, whole
from costmodel.roofline import SUMMED, StageCost, added
from costmodel.schedule import tokens_by_layer
from costmodel.time_source import source_of
from hardware_specs.errors import UnknownNameError
from hardware_specs.showing import brief

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import pandas as pd

    from costmodel.memory import MemoryCost
    from costmodel.quantities import Num, OpCost
    from costmodel.roofline import Roofline
    from costmodel.schedule import LayerSpan
    from costmodel.time_source import TimeSource

SCHEMA_VERSION = 1
#: A number of one scenario, or None where a convention does not define it.
Known: TypeAlias = Any


@dataclass(frozen=True, slots=True)
class TotalCost(StageCost):
    """All stages together.

    `ttft_s` is the time to the first token: vision, projector, reduction and prefill. `tpot_s` is
    the mean time per decoded token, None when none is decoded.
    """

    ttft_s: Num = 0.0
    tpot_s: Num | None = None

    __repr__ = brief


class Stages(dict[str, StageCost]):
    """Costs by stage: `vision, projector, reduction, prefill, decode`."""

    def __repr__(self) -> str:
        """Name the stages that did something, with their times where there are any."""
        parts = [
            name if not cost.time_s else f"{name} {float(cost.time_s) * 1e3:.4g} ms"
            for name, cost in self.items()
            if cost.kernels or cost.flops
        ]
        return f"<Stages: {', '.join(parts)}>"

    def __missing__(self, name: str) -> Any:
        """Say which stages there are."""
        raise UnknownNameError(name, STAGES, "stage")


@dataclass(frozen=True)
class Estimate:
    """What one scenario costs.

    Attributes:
        stages: the cost of each stage.
        totals: all stages together, with `ttft_s` and `tpot_s`.
        memory: footprint and its timeline.
        warnings: what the caller should know, one sentence each.
        source: what priced the ops; None under a convention.
    """

    stages: Stages
    totals: TotalCost
    memory: MemoryCost
    warnings: tuple[str, ...]
    _inputs: Callable[[], dict[str, Any]]
    _ops: Callable[[], tuple[OpRow, ...]]
    _assumptions: Callable[[], dict[str, Any]]
    _kv_by_layer: Callable[[], tuple[int | float, ...]] = tuple
    source: Roofline | None = field(default=None, repr=False)
    _spans: tuple[LayerSpan, ...] = ()

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """Every argument as resolved."""
        return self._inputs()

    @property
    def visual_tokens_by_layer(self) -> tuple[tuple[int, int], ...]:
        """(Layers, visual tokens that enter each of them), first layer of the language model to last.

        Empty under a convention.
        """
        return tokens_by_layer(self._spans)

    @property
    def calibration(self) -> TimeSource:
        """What the times rest on."""
        held = None if self.source is None else self.source.calibration
        return source_of(held, self.totals.errors)

    @cached_property
    def ops(self) -> tuple[OpRow, ...]:
        """The cost op by op: counts, bytes by kind, intensity, bound, time and where it comes from."""
        return self._ops()

    @property
    def assumptions(self) -> dict[str, Any]:
        """What the numbers rest on, by name."""
        return self._assumptions()

    @property
    def kv_bytes_by_layer(self) -> tuple[int | float, ...]:
        """Bytes of each layer's KV cache at the end, in the order of the layers.

        Methods that drop tokens inside the language model leave ragged caches.
        """
        return self._kv_by_layer()

    @property
    def mean_visual_tokens(self) -> float | None:
        """Visual tokens per layer of the language model, on average; None under a convention."""
        layers = sum(span.layers for span in self._spans)
        if not layers:
            return None
        tokens: int = sum(span.layers * whole(span.tokens) for span in self._spans)
        return tokens / layers

    @property
    def communication(self) -> dict[str, Any] | None:
        """What one rank exchanges: bytes of the tensors and executions by kind, and seconds.

        None where the plan of parallelism has no collective.

        >>> from costmodel import estimate
        >>> estimate("llama-2-7b", "nvidia-l4", text_tokens=8, dp=2).communication is None
        True
        """
        network = None if self.source is None else self.source.network
        if network is None:
            return None
        rows = [row for row in self.ops if row.op_class in COLLECTIVES]
        kinds = dict.fromkeys(str(row.op_class) for row in rows)
        return {
            "devices": Parallel.of(self.inputs).devices,
            "node": network.node.name,
            "links": {kind: network.links[kind] for kind in kinds},
            "bytes": {kind: _sum(rows, kind, "link_bytes") for kind in kinds},
            "count": {kind: _sum(rows, kind, "count") for kind in kinds},
            "time_s": sum(stage.link_s for stage in self.stages.values()),
        }

    def ops_frame(self) -> pd.DataFrame:
        """Return `ops` as a DataFrame, one row per op."""
        import pandas as pd

        return pd.DataFrame([asdict(row) for row in self.ops])

    def to_dict(self) -> dict[str, Any]:
        """Return the estimate as the JSON document of `--json`, `schema_version` 1."""
        return {
            "schema_version": SCHEMA_VERSION,
            "inputs": dict(self.inputs),
            "assumptions": self.assumptions,
            "stages": {name: _named(cost, COST_KEYS) for name, cost in self.stages.items()},
            "totals": _named(self.totals, (*COST_KEYS, "ttft_s", "tpot_s")),
            "memory": _named(self.memory, MEMORY_KEYS),
            "calibration": self.calibration.to_dict(),
            "visual_tokens_by_layer": [list(span) for span in self.visual_tokens_by_layer],
            "mean_visual_tokens": self.mean_visual_tokens,
            "warnings": list(self.warnings),
            **({} if self.communication is None else {"communication": self.communication}),
        }

    def _repr_html_(self) -> str:
        from costmodel.written_tables import WrittenTable

        rows = tuple(
            (
                name,
                _scaled(cost.flops, 1e-9),
                _scaled(cost.hbm_bytes, 1e-9),
                _scaled(cost.time_s, 1e3),
                _scaled(cost.time_low_s, 1e3),
                _scaled(cost.time_high_s, 1e3),
                cost.bound or "",
            )
            for name, cost in (*self.stages.items(), ("total", self.totals))
        )
        headings = ("stage", "GFLOP", "GB moved", "ms", "low", "high", "bound")
        return WrittenTable(repr(self), headings, rows).html()

    def __repr__(self) -> str:
        """Show the scenario and its headline numbers."""
        given, totals, memory = self.inputs, self.totals, self.memory
        parts = [
            (totals.flops, 1e-12, ".3f", " TFLOP"),
            (totals.ttft_s, 1e3, ".2f", " ms to the first token"),
            (memory.peak_memory_bytes, 1e-9, ".2f", " GB peak"),
        ]
        known = [f"{v * f:{form}}{unit}" for v, f, form, unit in parts if v is not None]
        return (
            f"Estimate({given['model']} on {given['hardware']}, {given['visual_tokens']} visual + "
            f"{given['text_tokens']} text tokens, batch {given['batch_size']}: {', '.join(known)})"
        )


def _sum(rows: list[OpRow], kind: str, quantity: str) -> Any:
    return whole(sum(getattr(row, quantity) for row in rows if row.op_class == kind))


def _scaled(value: Any, factor: float) -> str:
    return "" if value is None else f"{value * factor:.3f}"


def _named(cost: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: whole(getattr(cost, name)) for name in names}


def total_cost(stages: Mapping[str, StageCost], output_tokens: Any) -> TotalCost:
    """Add the stages up; what no stage defines is None.

    Args:
        stages: the cost of each stage.
        output_tokens: decode steps; a number here (a sweep adds up its own arrays).
    """
    costs = list(stages.values())
    # Ours count kernels, and then everything; no convention does.
    fields: list[Any]
    if costs[0].kernels is None:
        fields = [*(_known(getattr(cost, name) for cost in costs) for name in SUMMED), None]
        add: Callable[[Iterable[Any]], Any] = _known
    else:
        fields, add = added(costs), sum
    # Added up on its own: a long decode less itself would leave nothing but rounding.
    first = add([cost.time_s for name, cost in stages.items() if name != "decode"])
    decode = stages["decode"].time_s
    tpot_s = decode / output_tokens if output_tokens and decode is not None else None
    return TotalCost(*[*fields, first, tpot_s])


def _known(values: Iterable[Any]) -> Any:
    found = [value for value in values if value is not None]
    return sum(found) if found else None


def defined(**known: Num) -> StageCost:
    """Return a stage of which only some quantities are defined; the others are None, never 0.

    >>> defined(flops=3).flops, defined(flops=3).hbm_bytes
    (3, None)
    """
    every: dict[str, Any] = {**dict.fromkeys(SUMMED), "errors": None, **known}
    return StageCost(**every)


@dataclass(frozen=True, slots=True)
class OpRow:
    """One op over all its executions; what a convention does not define is None.

    Counts and bytes are those of `OpCost`, times `count`.

    Attributes:
        name: the op, with the layers it spans in brackets when they are not all.
        hbm_bytes: bytes of every kind together.
        link_bytes: bytes of the tensors that collectives exchange; None for other ops.
        bound: `compute`, `memory`, `power` or `link`.
        ideal_time_s: the roofline's seconds, at best.
        sol_percent: speed of light, the ideal time as a share of the predicted one.
        provenance: where the time comes from.
    """

    stage: str
    name: str
    op_class: str | None = None
    dtype: str | None = None
    count: Known = None
    flops: Known = None
    executed_flops: Known = None
    weight_bytes: Known = None
    kv_read_bytes: Known = None
    kv_write_bytes: Known = None
    activation_read_bytes: Known = None
    activation_write_bytes: Known = None
    hbm_bytes: Known = field(init=False)
    kernels: Known = None
    link_bytes: Known = None
    intensity_flop_per_byte: Known = None
    bound: Any = None
    time_s: Known = None
    time_low_s: Known = None
    time_high_s: Known = None
    ideal_time_s: Known = None
    sol_percent: Known = None
    provenance: str | None = None

    __repr__ = brief

    def __post_init__(self) -> None:
        """Add the bytes up."""
        object.__setattr__(self, "hbm_bytes", traffic(self))

    def to_dict(self) -> dict[str, Any]:
        """Return the row as a dictionary."""
        return asdict(self)


#: Quantities that an op has of one execution, and its row of all.
_OF_ONE = SUMMED[: SUMMED.index("time_s")]


def op_rows(by_stage: Mapping[str, list[OpCost]], roofline: Roofline) -> tuple[OpRow, ...]:
    """Price every op on its own."""
    rows = []
    for stage, ops in by_stage.items():
        for op in ops:
            count = op.count
            if not count:
                continue
            time, ideal, in_memory, by_power = roofline.op_times(op, max)
            low, high = roofline.op_interval(op, time, max)
            total_bytes = op.hbm_bytes * count
            rows.append(
                OpRow(
                    stage=stage,
                    name=op.name,
                    op_class=op.op_class,
                    dtype=op.dtype,
                    count=whole(count),
                    **{name: whole(getattr(op, name) * count) for name in _OF_ONE},
                    link_bytes=_sent(op),
                    intensity_flop_per_byte=float(op.executed_flops * count / total_bytes)
                    if total_bytes
                    else None,
                    bound=_bound_of(op, by_power, in_memory),
                    time_s=float(time * count),
                    time_low_s=float(low * count),
                    time_high_s=float(high * count),
                    ideal_time_s=float(ideal * count),
                    sol_percent=100 * float(ideal / time) if time else None,
                    provenance=provenance(op, roofline, bool(in_memory)),
                )
            )
    return tuple(rows)


def _sent(op: OpCost) -> Any:
    """Return the bytes that all executions of a collective exchange, None for other ops."""
    return whole(op.shape[0] * op.count) if is_collective(op) and op.shape else None


def _bound_of(op: OpCost, by_power: Any, in_memory: Any) -> str:
    if is_collective(op):
        return "link"
    return "power" if by_power else "memory" if in_memory else "compute"


def provenance(op: OpCost, roofline: Roofline, in_memory: bool) -> str:
    """Say where an op's time comes from."""
    if roofline.network is not None and is_collective(op):
        return roofline.network.provenance(op)
    if roofline.calibration is not None:
        return str(roofline.calibration.provenance(op.op_class, op.dtype))
    limit = "bytes / bandwidth" if in_memory else "executed FLOPs / peak"
    return f"computed: {limit} of {roofline.hardware.id}"
