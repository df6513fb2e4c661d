"""Collectives over a link: the algorithms by hand, and the constants on measurements they did not see."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from costmodel.parallel import Parallel
from costmodel.parallel.link_fit import fit_link, usable
from costmodel.parallel.links import DATA, LinkLaw, Protocol, algorithms, link_law, ring, tree
from costmodel.parallel.network import Network
from hardware_specs import get_hardware, list_hardware, node_of

NVLINK = 300e9
TABLE = pd.read_csv(DATA / "collectives_a100.csv")
REDUCES = TABLE[TABLE["collective"] == "all_reduce"]
DGX = REDUCES[(REDUCES["node"] == "a100_dgx") & (REDUCES["devices"] == REDUCES["devices_per_node"])]
#: Below 2 MB the host's launches blur what was measured.
LONG = 1.9e6


def _off(law: LinkLaw, rows: pd.DataFrame) -> np.ndarray:
    rows = usable(rows)
    rows = rows[rows["bytes"] > LONG]
    steps, carried = ring("all_reduce", rows["bytes"].to_numpy(float), rows["devices"].to_numpy())
    said = law.seconds(steps, carried, NVLINK, np.minimum)
    return np.abs(said / rows["seconds"].to_numpy() - 1)


def test_by_hand() -> None:
    """8 ranks, 800 B, 1 us a start, 1 us a step, half of 1 GB/s: 14 steps, 1,400 B; 6 steps, 1,600 B."""
    protocol = Protocol(1e-6, 1e-6, 0.5)
    law = LinkLaw(protocol, protocol, protocol, 1.0, 1.0, "by hand")
    assert tree(800, 8) == (6, 1600)
    found = algorithms(law, "all_reduce", 800, 8, 1e9, min, direct=True, far=True)
    assert found == pytest.approx(
        {"ring": 15e-6 + 2.8e-6, "tree": 7e-6 + 3.2e-6, "one-shot": 2e-6 + 11.2e-6}
    )
    # A reduce-scatter and an all-gather are an all-reduce.
    halves = [ring(kind, 800, 8) for kind in ("reduce_scatter", "all_gather")]
    assert tuple(np.sum(halves, axis=0)) == ring("all_reduce", 800, 8)


@pytest.mark.parametrize("left_out", [2, 4, 8])
def test_a_group_that_the_fit_did_not_see(left_out: int) -> None:
    law = fit_link(DGX[DGX["devices"] != left_out], None, NVLINK)
    off = _off(law, DGX[DGX["devices"] == left_out])
    assert len(off) >= 6
    assert off.mean() < 0.10
    assert np.median(off) < 0.15
    assert np.mean(off < 0.15) > 0.8


@pytest.mark.parametrize("first", [0, 1])
def test_sizes_that_the_fit_did_not_see(first: int) -> None:
    turn = DGX.groupby("devices").cumcount() % 2
    law = fit_link(DGX[turn == first], None, NVLINK)
    off = _off(law, DGX[turn != first])
    assert off.mean() < 0.07
    assert off.max() < 0.16


def test_the_shipped_constants_are_those_of_the_table() -> None:
    joined = REDUCES[(REDUCES["devices"] == 2) & (REDUCES["node"] != "a100_dgx")]
    assert _off(link_law("nvlink"), DGX).max() < 0.15
    assert np.mean(_off(link_law("nvlink"), joined) < 0.15) > 0.8
    assert set(TABLE["node"]) == {"a100_dgx", "a100_pairwise_nvlink"}


@pytest.mark.parametrize("ranks", [2, 4, 8, 16])
def test_more_bytes_take_longer(ranks: int) -> None:
    a100 = get_hardware("a100")
    for direct in (False, True):
        network = Network(a100, Parallel(tp=ranks), direct=direct, ideal=False)
        sizes = np.geomspace(1, 1e9, 300)
        op = _reduce(sizes, ranks)
        times = network.seconds(op, np.minimum)
        # Where an engine leaves a message to the library, it may cost less than just below.
        falls = np.flatnonzero(np.diff(times) < 0)
        assert len(falls) <= direct
        assert np.all(times >= network.ideal_s(op))
    assert network.seconds(_reduce(0, ranks)) == 0


def _reduce(size: object, ranks: int):
    from costmodel.quantities import op_cost

    return op_cost("sum", "all_reduce", "fp16", 1, shape=(size, ranks))


def test_every_device_with_a_link_has_a_node() -> None:
    for name in list_hardware():
        hardware = get_hardware(name)
        if not set(hardware.links) - {"nvlink_c2c"}:
            continue
        node = node_of(hardware)
        assert node.count >= node.group >= 2
        assert node.rate(hardware, node.link) > 1e9


def test_what_stands_behind_a_time_is_said() -> None:
    standing = {
        (name, direct): Network(
            get_hardware(name), Parallel(tp=2), direct=direct, ideal=False
        ).standing
        for name in ("a100", "h100", "l40s")
        for direct in (False, True)
    }
    assert standing["a100", False] == "measured"
    assert set(standing.values()) == {"measured", "transferred"}
