"""The block that is a collective; plans lower it to an op of its own class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


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
