"""The links' constants from public measurements of NCCL: the table the project carries, and the fit.

    python benchmarks/calibration_collectives.py TABLE.parquet      cut the public table down
    python benchmarks/calibration_collectives.py                    fit, and say how far off it is

Source: microsoft/vidur @7d47513 data/profiling/network (MIT): NCCL all-reduce and send/recv on A100s of a
DGX (also across nodes) and on four A100 PCIe joined in pairs, 2 KB to 512 MB.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from costmodel.parallel.link_fit import fit_link, usable
from costmodel.parallel.links import DATA, LinkLaw, ring

SOURCE = "microsoft/vidur @7d47513 data/profiling/network (MIT)"
GROUP = ["node", "collective", "devices", "devices_per_node"]
NVLINK, PCIE, NETWORK = 300e9, 31.508e9, 25e9
SXM = ["nvidia-a100-sxm4-40gb", "nvidia-a100-sxm4-80gb"]
CARDS = ["nvidia-a100-pcie-40gb", "nvidia-a100-pcie-80gb"]
DEVICES = {"nvlink": [*SXM, *CARDS], "pcie": CARDS, "network": SXM}


def cut(path: Path) -> pd.DataFrame:
    """Two rows per octave: medians, and what a tenth of the runs stayed below."""
    table = pd.read_parquet(path)
    table["octave"] = np.round(np.log2(table["bytes"]) * 2) / 2
    rows = table.groupby([*GROUP, "octave"]).agg(
        bytes=("bytes", "median"), time_s=("time_s", "median"),
        tenth_s=("time_s", lambda times: times.quantile(0.1)), points=("time_s", "size"),
    )  # fmt: skip
    return rows.reset_index().drop(columns="octave").round({"time_s": 8, "tenth_s": 8})


def fitted(table: pd.DataFrame) -> dict[str, LinkLaw]:
    """The law of each kind of link."""
    reduces = table[table["collective"] == "all_reduce"]
    sends = table[table["collective"] == "send_recv"]
    near = reduces["devices"] == reduces["devices_per_node"]
    dgx = reduces["node"] == "a100_dgx"
    apart = sends["devices_per_node"] == 1
    within = near & (dgx | (reduces["devices"] == 2))
    nvlink = fit_link(reduces[within], sends[~apart], NVLINK,
                      source=f"{SOURCE}, inside a DGX A100 and between two joined cards")  # fmt: skip
    pcie = fit_link(reduces[~dgx & (reduces["devices"] == 4)], None, PCIE, steps_of=nvlink,
                    source=f"{SOURCE}, two pairs of A100 PCIe")  # fmt: skip
    network = fit_link(reduces[dgx & ~near], sends[apart], NETWORK, steps_of=nvlink,
                       source=f"{SOURCE}, across two nodes")  # fmt: skip
    pcie = pcie._replace(send=pcie.long._replace(step_s=0.0, start_s=nvlink.send.start_s))
    return {"nvlink": nvlink, "pcie": pcie, "network": network}


def main() -> None:
    """Write the table, or the constants."""
    carried = DATA / "collectives_a100.csv"
    if len(sys.argv) > 1:
        cut(Path(sys.argv[1])).to_csv(carried, index=False)
    table = pd.read_csv(carried)
    laws = fitted(table)
    links = {
        name: {
            **{part: getattr(law, part)._asdict() for part in ("short", "long", "send")},
            "low": law.low, "high": law.high, "source": law.source, "devices": DEVICES[name],
        }
        for name, law in laws.items()
    }  # fmt: skip
    (DATA / "links.json").write_text(
        json.dumps({"schema_version": 1, "links": links}, indent=1) + "\n"
    )
    rows = usable(table[table["collective"] == "all_reduce"])
    for group, some in rows.groupby(["node", "devices", "devices_per_node"]):
        node, devices, near = group
        kind = (
            "network"
            if near < devices
            else "pcie"
            if (node, devices) == ("a100_pairwise_nvlink", 4)
            else "nvlink"
        )
        rate = {"nvlink": NVLINK, "pcie": PCIE, "network": NETWORK}[kind]
        said = laws[kind].seconds(
            *ring("all_reduce", some["bytes"].to_numpy(float), devices), rate, np.minimum
        )
        off = np.abs(said / some["seconds"].to_numpy() - 1)
        long = some["bytes"].to_numpy() > 1.9e6
        print(f"{kind:8} {node} {devices}/{near}: above 2 MB mean {off[long].mean():.1%} largest "
              f"{off[long].max():.1%}; below mean {off[~long].mean():.1%}")  # fmt: skip


if __name__ == "__main__":
    main()
