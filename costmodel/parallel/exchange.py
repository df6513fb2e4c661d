"""The block that is a collective, and the ops that plans lower it to, each of a class of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from costmodel.quantities import OpCost

#: Op classes that are collectives.
COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "send")


@dataclass(frozen=True, slots=True)
class Exchange:
    """Rows of a width that ranks sum up, gather or hand on.

    Attributes:
        name: of the op.
        kind: one of `COLLECTIVES`.
        width: numbers of a row, of the whole tensor.
        rows: which rows.
        ranks: how many take part.
    """

    name: str
    kind: str
    width: int
    rows: str
    ranks: int
    parameters: ClassVar[int] = 0


def is_collective(op: OpCost) -> bool:
    """Whether an op is a collective."""
    return op.op_class in COLLECTIVES


def apart(ops: Sequence[OpCost]) -> tuple[list[OpCost], list[OpCost]]:
    """Return the ops of a device, and its collectives."""
    return [op for op in ops if not is_collective(op)], [op for op in ops if is_collective(op)]
