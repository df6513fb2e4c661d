"""What `estimate` answers with: costs by stage, totals, memory, and the JSON document of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from costmodel.quantities import COST_KEYS, MEMORY_KEYS, STAGES, whole
from costmodel.roofline import StageCost
from hardware_specs.errors import UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class TotalCost(StageCost):
    """All stages together.

    `ttft_s` is the time to the first token: vision, projector, reduction and prefill. `tpot_s` is
    the mean time per decoded token, None when none is decoded.
    """

    ttft_s: Any = 0.0
    tpot_s: Any = None


class Stages(dict[str, Any]):
    """Costs by stage: `vision, projector, reduction, prefill, decode`."""

    def __missing__(self, name: str) -> Any:
        """Say which stages there are."""
        raise UnknownNameError(name, STAGES, "stage")


@dataclass(frozen=True)
class Estimate:
    """What one scenario costs.

    Attributes:
        inputs: every argument as resolved.
        stages: the cost of each stage.
        totals: all stages together, with `ttft_s` and `tpot_s`.
        memory: footprint and its timeline.
        warnings: what the caller should know, one sentence each.
    """

    inputs: dict[str, Any]
    stages: Stages
    totals: Any
    memory: Any
    warnings: tuple[str, ...]
    _ops: Callable[[], tuple[Any, ...]]
    _assumptions: Callable[[], dict[str, Any]]
    _kv_by_layer: Callable[[], tuple[int | float, ...]] = tuple

    @cached_property
    def ops(self) -> tuple[Any, ...]:
        """The cost op by op: counts, bytes by kind, intensity, bound, time and where it comes from.

        Rows are `OpRow`; under another tool's convention, that tool's own rows.
        """
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
            "warnings": list(self.warnings),
        }

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


def _named(cost: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: whole(getattr(cost, name)) for name in names}


def total_cost(stages: Mapping[str, StageCost], output_tokens: Any) -> TotalCost:
    """Add the stages up.

    Args:
        stages: the cost of each stage.
        output_tokens: decode steps; a number here (a sweep adds up its own arrays).
    """
    costs = list(stages.values())
    sums = {name: sum(getattr(cost, name) for cost in costs) for name in StageCost.__slots__}
    decode = stages["decode"].time_s
    # Added up on its own: a long decode less itself would leave nothing but rounding.
    first = sum(cost.time_s for name, cost in stages.items() if name != "decode")
    tpot_s = decode / output_tokens if output_tokens else None
    return TotalCost(**sums, ttft_s=first, tpot_s=tpot_s)
