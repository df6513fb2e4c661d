"""A plan of parallelism: how many devices share a layer, a model and the requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from costmodel.quantities import Num


#: Arguments that are degrees of parallelism.
DEGREES = ("tp", "pp", "dp")


class Parallel(NamedTuple):
    """Degrees of parallelism: ranks of a tensor group are neighbours, then come stages, then replicas.

    Attributes:
        tp: devices that share every layer of the language model.
        pp: stages that the layers are cut into, one after the other.
        dp: replicas that share the requests.
        apart: whether each replica has one device more, for the vision tower.

    >>> Parallel(tp=2, dp=4).devices, Parallel(tp=2, apart=True).devices
    (8, 3)
    """

    tp: int = 1
    pp: int = 1
    dp: int = 1
    apart: bool = False

    @classmethod
    def of(cls, values: Any) -> Parallel:
        """Return the plan of arguments by name: one request's, or the columns of a table.

        >>> Parallel.of({"tp": 2, "pp": 1, "dp": 2, "tower": "apart"}).devices
        6
        """
        return cls(values["tp"], values["pp"], values["dp"], values["tower"] == "apart")

    @property
    def devices(self) -> int:
        """All devices together."""
        return (self.tp * self.pp + self.apart) * self.dp

    def local_batch(self, batch: Num) -> Num:
        """Return the samples of the fullest replica.

        >>> Parallel(dp=4).local_batch(9)
        3
        """
        return -(-batch // self.dp) if self.dp > 1 else batch
