"""The links between the ranks of a device: which they are, and what a collective over them takes."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.parallel.exchange import COLLECTIVES
from costmodel.parallel.links import algorithms, link_law, ring
from costmodel.uncertainty import Errors, Part
from hardware_specs.nodes import node_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from costmodel.parallel.degrees import Parallel
    from costmodel.quantities import Num, OpCost
    from hardware_specs import HardwareSpec

#: The class whose errors all collectives share.
LINK = "link"
#: Links over which a device reads any other's memory in its group.
DIRECT = ("nvlink", "infinity_fabric")


class Network:
    """The links of a plan of parallelism.

    Args:
        hardware: the device.
        parallel: the plan.
        direct: whether a serving engine runs, whose ranks read each other's memory.
        ideal: whether times are those of the data sheet's rates alone.

    Attributes:
        node: the node that the devices stand in.

    Raises:
        InvalidInputError: a link of which nothing is known.
    """

    def __init__(
        self, hardware: HardwareSpec, parallel: Parallel, *, direct: bool, ideal: bool
    ) -> None:
        self.node = node = node_of(hardware)
        self._ideal = ideal
        # Neighbouring pipeline stages lie a tensor group apart; the farthest pair sets the pace.
        span = {"send": parallel.tp * parallel.pp + parallel.apart}
        self._far = {kind: span.get(kind, parallel.tp) > node.count for kind in COLLECTIVES}
        self.links = {kind: node.route(span.get(kind, parallel.tp)) for kind in COLLECTIVES}
        used = {"send"} if parallel.tp == 1 else set(COLLECTIVES)
        used -= {"send"} if parallel.pp == 1 and not parallel.apart else set()
        self._rates = {kind: node.rate(hardware, self.links[kind]) for kind in used}
        self._laws = {kind: link_law(self.links[kind]) for kind in used}
        known = [hardware.id in law.devices for law in self._laws.values()]
        origin = [bool(law.devices) for law in self._laws.values()]
        # Everybody reading everybody's is priced like as many sends.
        self._joined = direct and node.link in DIRECT
        self.standing = "assumed" if not all(origin) else "transferred"
        if all(known) and not self._joined:
            self.standing = "measured"
        # A node without a measurement of its own may be off as far as the link kinds differ.
        self.low = min(law.low for law in self._laws.values())
        self.high = max(law.high for law in self._laws.values())
        if not all(known):
            self.low, self.high = min(self.low, 0.5), max(self.high, 2.0)

    def by_algorithm(self, op: OpCost, least: Callable[..., Any] = min) -> dict[str, Num]:
        """Return the seconds of one execution by every algorithm that the link allows."""
        kind, (size, ranks) = op.op_class, op.shape or (0, 1)
        return algorithms(
            self._laws[kind], kind, size, ranks, self._rates[kind], least,
            direct=self._joined and ranks <= self.node.group,
            far=self._far[kind],
        )  # fmt: skip

    def ideal_s(self, op: OpCost) -> Num:
        """Return the seconds of the bytes of one execution at the link's rate, nothing else."""
        size, ranks = op.shape or (0, 1)
        return ring(op.op_class, size, ranks)[1] / self._rates[op.op_class]

    def seconds(self, op: OpCost, least: Callable[..., Any] = min) -> Num:
        """Return the seconds of one execution by the fastest algorithm."""
        if self._ideal:
            return self.ideal_s(op)
        time: Num = math.inf
        for each in self.by_algorithm(op, least).values():
            time = least(time, each)
        # Nothing to send takes no time.
        return time * (op.shape is not None and op.shape[0] > 0)

    def provenance(self, op: OpCost) -> str:
        """Say where a collective's time comes from."""
        kind = self.links[op.op_class]
        if self._ideal:
            return f"computed: bytes / rate of the {kind}"
        times = self.by_algorithm(op)
        algorithm = min(times, key=lambda name: float(times[name]))
        return f"{self.standing}: {algorithm} over {kind} ({self._laws[op.op_class].source})"

    def interval(self, time: Num) -> tuple[Num, Num]:
        """Return the ends of the 90 % interval of a time."""
        return (time, time) if self._ideal else (time * self.low, time * self.high)

    def factors(self, z: Any) -> Any:
        """Return measured over predicted at standard normal scores, log-normal on either side."""
        below, above = (math.log(end) / NormalDist().inv_cdf(0.95) for end in (self.low, self.high))
        return np.exp(np.where(z < 0, -z * below, z * above))

    def errors(self, time: Num) -> Errors:
        """Return the uncertainty of all collectives of a stage together: one law, so they err alike."""
        if self._ideal:
            return Errors(time, {(LINK, "", "assumed"): Part(time, 0.0 * time, 0.0 * time)})
        middle = time * (self.low * self.high) ** 0.5
        low, high = self.interval(time)
        return Errors(middle, {(LINK, "", self.standing): Part(time, middle - low, high - middle)})

    def spent(self, ops: Sequence[OpCost], vector: bool) -> tuple[Any, Any, Any]:
        """Return seconds, seconds at best and executions of collectives together."""
        least: Any = np.minimum if vector else min
        time: Num = 0.0
        best: Num = 0.0
        count: Num = 0
        for op in ops:
            time = time + self.seconds(op, least) * op.count
            best = best + self.ideal_s(op) * op.count
            count = count + op.count
        return time, best, count
