"""What a counting convention answers: stages, totals, memory, an op table, and its assumptions.

The keys are those of an estimate, so that both can stand side by side. A quantity that a convention
does not define is None, never 0: a paper that counts FLOPs says nothing of bytes or time.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from costmodel.quantities import COST_KEYS, STAGES

if TYPE_CHECKING:
    from collections.abc import Mapping

#: A number, or a numpy array of them with one entry per scenario.
Num: TypeAlias = Any

TOTAL_KEYS = (*COST_KEYS, "ttft_s", "tpot_s")


@dataclass(frozen=True, slots=True)
class ConventionOp:
    """One row of a convention's op table: what all its executions cost together.

    Attributes:
        stage: the stage it belongs to.
        name: the op's name.
        count: executions the row adds up (layers, or layers x decode steps).
        flops: what the convention calls its operations.
        load_weight_bytes: weights read.
        load_act_bytes: activations read.
        store_act_bytes: activations written.
        load_kv_bytes: KV cache read.
        store_kv_bytes: KV cache written.
        time_s: time, in seconds.
        bound: `compute` or `memory`, as one execution is; in a mixed row, where most time goes.
    """

    stage: str
    name: str
    count: int
    flops: Num
    load_weight_bytes: Num | None = None
    load_act_bytes: Num | None = None
    store_act_bytes: Num | None = None
    load_kv_bytes: Num | None = None
    store_kv_bytes: Num | None = None
    time_s: Num | None = None
    bound: Any = None

    @property
    def hbm_bytes(self) -> Num | None:
        """All bytes the row moves, or None where the convention counts no bytes."""
        if self.load_weight_bytes is None:
            return None
        return (
            self.load_weight_bytes
            + self.load_act_bytes
            + self.store_act_bytes
            + self.load_kv_bytes
            + self.store_kv_bytes
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the row as a dictionary, as the rows of `torch` counting do."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ConventionResult:
    """What one convention counts for one model and input.

    Attributes:
        convention: the convention's name.
        stages: stage -> the keys of `COST_KEYS`; None where not defined.
        totals: the keys of `TOTAL_KEYS` over all stages the convention counts.
        memory: the keys of `MEMORY_KEYS`.
        ops: the op table.
        assumptions: what is counted and how, in words.
    """

    convention: str
    stages: Mapping[str, Mapping[str, Any]]
    totals: Mapping[str, Any]
    memory: Mapping[str, Any]
    ops: tuple[ConventionOp, ...]
    assumptions: Mapping[str, str]


def empty_stages() -> dict[str, dict[str, Any]]:
    """Return all stages with every quantity undefined."""
    return {stage: dict.fromkeys(COST_KEYS) for stage in STAGES}


def add_defined(*values: Num | None) -> Any:
    """Return the sum of the values that are defined, or None where none is.

    >>> add_defined(1, None, 2), add_defined(None)
    (3, None)
    """
    defined = [value for value in values if value is not None]
    if not defined:
        return None
    total = defined[0]
    for value in defined[1:]:
        total = total + value
    return total
