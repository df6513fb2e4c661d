"""Nodes: how many devices stand together, and over which links they reach each other.

One YAML file per usual node under `data/nodes/`; the rates of NVLink and PCIe are the device's own. A
device that no file lists stands in a node of eight, joined by the fastest link of its own, which is an
assumption and says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hardware_specs.errors import InvalidInputError, UnknownNameError, check_kind
from hardware_specs.spec import HardwareSpec, Provenance

_DATA = Path(__file__).parent / "data" / "nodes"
#: Devices of a node that nobody described.
USUAL_COUNT = 8
#: Links that join devices of one node, the fastest first.
_LINKS = ("nvlink", "infinity_fabric", "ici", "ethernet", "pcie")


@dataclass(frozen=True, slots=True)
class Node:
    """A machine with several devices.

    Attributes:
        id: the name of its file; empty for an assumed one.
        name: what it is called.
        devices: ids of the devices that stand in it.
        count: how many of them.
        link: kind of the link within a group, as in `HardwareSpec.links`.
        group: neighbours that this link joins, each with each.
        beyond: kind of the link between groups.
        network_bytes_per_s: of one device to other nodes, B/s in one direction; None where not known.
        provenance: where this comes from.
    """

    id: str
    name: str
    devices: tuple[str, ...]
    count: int
    link: str
    group: int
    beyond: str
    network_bytes_per_s: float | None
    provenance: Provenance

    def route(self, ranks: int) -> str:
        """Return the kind of the slowest link among so many neighbours, `network` beyond the node.

        >>> [get_node("a100-pcie-pairs").route(ranks) for ranks in (2, 4, 8)]
        ['nvlink', 'pcie', 'network']
        """
        if ranks <= self.group:
            return self.link
        return self.beyond if ranks <= self.count else "network"

    def rate(self, hardware: HardwareSpec, kind: str) -> float:
        """Return the B/s of one device in one direction over a kind of link.

        Raises:
            InvalidInputError: nothing is known of that link.

        >>> from hardware_specs import get_hardware
        >>> a100 = get_hardware("nvidia-a100-sxm4-80gb")
        >>> node_of(a100).rate(a100, "nvlink")
        300000000000.0
        """
        link = hardware.links.get(kind)
        rate = self.network_bytes_per_s if link is None else link.bytes_per_s_per_direction
        if link is not None and rate is None and link.bytes_per_s_bidirectional is not None:
            rate = link.bytes_per_s_bidirectional / 2
        if rate is None:
            raise InvalidInputError(
                f"no rate of the {kind} of {hardware.id} in {self.name} is known; take fewer devices, "
                "or a device file that states it under interconnect:"
            )
        return rate


@cache
def list_nodes() -> tuple[str, ...]:
    """Return the ids of the nodes that are described, sorted.

    >>> "dgx-a100" in list_nodes()
    True
    """
    return tuple(sorted(path.stem for path in _DATA.glob("*.yaml")))


def get_node(name: str) -> Node:
    """Return a node by its id.

    Raises:
        UnknownNameError: there is none; carries near matches.

    >>> get_node("l40s-8-pcie").count
    8
    """
    if name not in list_nodes():
        raise UnknownNameError(name, list_nodes(), "node")
    return _shipped(name)


@cache
def _shipped(name: str) -> Node:
    from hardware_specs.files.reading import read_yaml

    found = read_yaml(_DATA / f"{name}.yaml")
    link = found["link"]
    return Node(
        name,
        found["name"],
        tuple(found["devices"]),
        found["count"],
        link["kind"],
        link["group"],
        found.get("beyond", link)["kind"],
        found.get("network", {}).get("bytes_per_s_per_direction"),
        Provenance((found["source"],), found["evidence"]),
    )


def node_of(hardware: HardwareSpec) -> Node:
    """Return the node that a device usually stands in.

    Raises:
        InvalidInputError: a device of which no link is known.

    >>> from hardware_specs import get_hardware
    >>> node_of(get_hardware("h100")).name, node_of(get_hardware("l4")).name
    ('NVIDIA HGX H100 (8 devices)', '8 devices over pcie (assumed)')
    """
    check_kind("hardware", hardware, HardwareSpec, "a HardwareSpec, as get_hardware returns it")
    for name in list_nodes():
        if hardware.id in get_node(name).devices:
            return get_node(name)
    kind = next((kind for kind in _LINKS if kind in hardware.links), None)
    if kind is None:
        raise InvalidInputError(
            f"no link of {hardware.id} to another device is known; state one under interconnect: in a "
            "device file"
        )
    name = f"{USUAL_COUNT} devices over {kind} (assumed)"
    origin = Provenance(("user",), "user", "a node of eight, joined by the device's own link")
    return Node("", name, (hardware.id,), USUAL_COUNT, kind, USUAL_COUNT, kind, None, origin)
