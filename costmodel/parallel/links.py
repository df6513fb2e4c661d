"""Collectives over a link: what each rank sends, and how long it takes, by algorithm.

N ranks exchange n bytes (the whole tensor that an all-reduce sums up, an all-gather yields, or a send
carries) over a link of B B/s in one direction:

| collective, algorithm | steps S | bytes through a rank's link |
|---|---|---|
| all-reduce, ring | 2 (N - 1) | 2 (N - 1)/N n |
| all-reduce, tree | 2 ceil(log2 N) | 2 n |
| all-gather, reduce-scatter, ring | N - 1 | (N - 1)/N n |
| all-reduce, one-shot: everybody reads everybody's | 1 | (N - 1) n |
| send | 1 | n |

    t = min over protocols of (t0 + S ts + bytes / (e B))

A library has a protocol for short messages (little latency, a third of the bandwidth) and one for long
ones: the constants t0, ts and e of each are fitted (`costmodel.parallel.link_fit`), and lie in
`data/links.json` with what they were fitted on. Of the algorithms that a link allows the fastest is taken,
as libraries do: rings inside a node, trees as well across nodes, one-shot where a serving engine runs on
devices that all reach each other. Sources: Thakur, Rabenseifner, Gropp 2005 (ring); NCCL 2.4 (tree).

Nothing overlaps: a rank computes or communicates.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from costmodel.quantities import Num

DATA = Path(__file__).parent / "data"
#: Ranks and bytes beyond which serving engines leave an all-reduce to the library: vLLM 0.5's
#: `custom_all_reduce`.
MOST_DIRECT, MOST_DIRECT_BYTES = 8, 8 * 2**20


class Protocol(NamedTuple):
    """How a library moves messages of some size.

    Attributes:
        start_s: t0, seconds of a message whatever its size.
        step_s: ts, seconds of each step.
        efficiency: e, share of the link's rate.
    """

    start_s: float
    step_s: float
    efficiency: float

    def seconds(self, steps: float, carried: Num, rate: float) -> Num:
        """Return the time of so many steps and bytes over a link of a rate in B/s.

        >>> Protocol(1e-6, 2e-6, 0.5).seconds(3, 1e6, 1e12)
        9e-06
        """
        return self.start_s + steps * self.step_s + carried / (self.efficiency * rate)


class LinkLaw(NamedTuple):
    """What a library reaches over one kind of link.

    Attributes:
        short: the protocol of short messages.
        long: the protocol of long ones.
        send: a message from one device to another.
        low: measured over predicted, 5 % of the points behind it below.
        high: the same, 5 % above.
        source: what it was fitted on.
        devices: ids of the devices it was measured on.
    """

    short: Protocol
    long: Protocol
    send: Protocol
    low: float
    high: float
    source: str
    devices: tuple[str, ...] = ()

    def seconds(self, steps: float, carried: Num, rate: float, least: Callable[..., Any]) -> Num:
        """Return the time of the faster protocol; `least` is `min`, or numpy's for arrays."""
        fast = self.short.seconds(steps, carried, rate)
        time: Num = least(fast, self.long.seconds(steps, carried, rate))
        return time


def ring(kind: str, size: Num, ranks: Any) -> tuple[Any, Num]:
    """Return the steps of a ring and the bytes that each rank sends, for one number of ranks or an array.

    >>> ring("all_reduce", 800, 4), ring("all_gather", 800, 4), ring("send", 800, 2)
    ((6, 1200.0), (3, 600.0), (1, 800))
    """
    if kind == "send":
        return 1, size
    rounds = 2 if kind == "all_reduce" else 1
    return rounds * (ranks - 1), rounds * (ranks - 1) / ranks * size


def tree(size: Num, ranks: int) -> tuple[int, Num]:
    """Return the steps of an all-reduce up a tree and down again, and the bytes.

    >>> tree(800, 8)
    (6, 1600)
    """
    return 2 * math.ceil(math.log2(ranks)), 2 * size


def algorithms(
    law: LinkLaw, kind: str, size: Num, ranks: int, rate: float, least: Callable[..., Any],
    *, direct: bool = False, far: bool = False,
) -> dict[str, Num]:  # fmt: skip
    """Return the seconds of every algorithm that a link allows, by name.

    Args:
        law: of the link.
        kind: one of `costmodel.parallel.exchange.COLLECTIVES`.
        size: n, bytes.
        ranks: N.
        rate: B, B/s.
        least: `min`, or numpy's for arrays.
        direct: whether every rank may read every other's memory.
        far: whether the ranks are in several nodes.

    >>> law = link_law("nvlink")
    >>> algorithms(law, "all_reduce", 16384, 8, 300e9, min, direct=True).keys()
    dict_keys(['ring', 'one-shot'])
    """
    if kind == "send":
        return {"send": law.send.seconds(1, size, rate)}
    found = {"ring": law.seconds(*ring(kind, size, ranks), rate, least)}
    if kind == "all_reduce" and far:
        found["tree"] = law.seconds(*tree(size, ranks), rate, least)
    if kind == "all_reduce" and direct and ranks <= MOST_DIRECT:
        beyond = size > MOST_DIRECT_BYTES
        once = law.send.seconds(1, (ranks - 1) * size, rate)
        found["one-shot"] = once * (1 - beyond) + found["ring"] * beyond
    return found


@cache
def link_law(kind: str) -> LinkLaw:
    """Return the law of a kind of link; of one that nobody measured, PCIe's constants.

    >>> link_law("nvlink").devices[0], link_law("infinity_fabric").devices
    ('nvidia-a100-sxm4-40gb', ())
    """
    from hardware_specs.files.reading import read_json

    document = read_json(DATA / "links.json", "calibration")["links"]
    found = document.get(kind, document["pcie"])
    short, long, send = (Protocol(**found[name]) for name in ("short", "long", "send"))
    devices = tuple(found["devices"]) if kind in document else ()
    return LinkLaw(short, long, send, found["low"], found["high"], found["source"], devices)
