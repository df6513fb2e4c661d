"""The block that is a collective, and the op it becomes under every plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from costmodel.quantities import op_cost

if TYPE_CHECKING:
    from costmodel.plans.plan import Rows, Setting, Step
    from costmodel.quantities import OpCost


@dataclass(frozen=True, slots=True)
class Exchange:
    """Rows of a width that ranks sum up, gather or hand on.

    Attributes:
        name: of the op.
        kind: one of `costmodel.parallel.links.COLLECTIVES`.
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


def exchanged(block: Exchange, setting: Setting) -> list[Step]:
    """Return the collective as an op of its own class, whose shape is (bytes, ranks).

    Traffic to device memory is part of its time, and not counted.
    """
    numerics = setting.numerics
    row_bytes = block.width * numerics.activation_bytes

    def run(n: Rows) -> OpCost:
        shape = (n[block.rows] * row_bytes, block.ranks)
        return op_cost(block.name, block.kind, numerics.attention_dtype, n["count"], shape=shape)

    return [run]
