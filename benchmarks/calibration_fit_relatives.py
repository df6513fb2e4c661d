"""Make the calibrations of devices without a table of their own: L4, Jetson AGX Orin, MI300X.

    python benchmarks/calibration_fit_relatives.py [--data FOLDER] [--out costmodel/calibration/data]

Run after `calibration_fit_devices.py`. FOLDER is `tests/costmodel/calibration/data/evidence`, which the
repository carries. An L4 is priced as its relative RTX 4090 (Ada), an AGX Orin as its relative RTX A6000
(Ampere), each at its own peaks, bandwidth and power limit; the share of their memory, which is another, stays
the prior's. An MI300X has seven products in profiler traces of two models: their law is held to its priors,
and its interval is that of leaving one out.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from calibration_fit_devices import with_torch
from calibration_public import EVIDENCE
from in_models import with_parameter

from costmodel.calibration import Calibration, ClassParameters, HeldOut, Parameter
from costmodel.calibration.file import DATA
from costmodel.calibration.fitting import moved_to
from costmodel.calibration.intervals import error_quantiles, share_inside
from costmodel.calibration.priors import priors_of
from costmodel.calibration.regression import bootstrap, fit, law_of
from costmodel.calibration.tables import group_points
from hardware_specs import get_hardware

if TYPE_CHECKING:
    from costmodel.calibration.parameters import Device
    from costmodel.calibration.tables import Group

L4, ORIN, MI300X = "nvidia-l4", "nvidia-jetson-agx-orin-64gb", "amd-mi300x"
RTX_4090, RTX_A6000 = "nvidia-rtx-4090", "nvidia-rtx-a6000"
TRACES = "profiler traces of Qwen1.5-0.5B and ViT-B/16 (AMD-AGI/TraceLens)"


def transferred(hardware: str, near: str) -> Calibration:
    """Return a relative's calibration at a device's own rates."""
    start, other = Calibration.load("generic", get_hardware(hardware)), Calibration.load(near)
    moved = moved_to(other, start.device)
    kinds = sorted({op_class for op_class, _ in moved})
    rest = sorted({op_class for op_class, _ in start.classes} - set(kinds))
    return replace(
        start,
        software=other.software,
        attribution=f"Transferred from {near}: {other.attribution}",
        classes={**start.classes, **moved},
        warnings=(
            f"transferred from {near}: {', '.join(kinds)}",
            f"not measured, parameters assumed: {', '.join(rest)}",
        ),
    )


def assumed_memory(found: Calibration) -> Calibration:
    """Return a transferred calibration with the priors' share of the memory's bandwidth."""
    for key, each in found.classes.items():
        if each.standing == "transferred" and key[0] in ("gemm", "conv"):
            share = priors_of(*key, each.kernels)["memory_efficiency"].median
            said = f"{each.provenance}; memory_efficiency is the prior's, as the memory is another"
            found = with_parameter(found, key, "memory_efficiency", Parameter(share), said)
    return found


def few_products(points: Group, device: Device) -> ClassParameters:
    """Return the law of fewer products than a fit of a table takes, held to its priors."""
    law = law_of(points.op_class, points.dtype, "library", device)
    values = fit(law, points)
    ratios = np.empty(len(points))
    for i in range(len(points)):
        rest = points.take(np.delete(np.arange(len(points)), i))
        ratios[i] = np.log(points.time_s / law.time_s(fit(law, rest), points.sizes))[i]
    ends = bootstrap(law, points, values, 50, np.random.default_rng(0))
    return ClassParameters(
        points.op_class,
        points.dtype,
        {name: Parameter(value, *ends[name]) for name, value in values.items()},
        f"fitted on {len(points)} products of {TRACES}, held to the priors",
        points=len(points),
        quantiles=error_quantiles(ratios),
        held_out=HeldOut.of(ratios, share_inside(ratios, ratios), "leaving one out"),
        kernels=law.family,
    )


def from_traces(hardware: str, data: Path) -> Calibration:
    """Return the calibration of a device of which there are products in profiler traces."""
    frame = pd.read_csv(data / "products_in_traces.csv")
    frame = frame[frame["device"] == hardware]
    start = Calibration.load("generic", get_hardware(hardware))
    (points,), _ = group_points([("traces", frame[["dtype", "m", "n", "k", "time_s"]])], ())
    found = few_products(points, start.device)
    rest = sorted({op_class for op_class, _ in start.classes} - {"gemm"})
    return replace(
        start,
        software="PyTorch",
        attribution="GEMM times: AMD-AGI/TraceLens at 171dd74 (MIT).",
        classes={**start.classes, ("gemm", "bf16"): found},
        warnings=(
            f"gemm in bf16: {len(points)} products, of two models",
            f"not measured, parameters assumed: {', '.join(rest)}",
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=EVIDENCE)
    parser.add_argument("--out", type=Path, default=DATA)
    arguments = parser.parse_args()
    for found in (
        assumed_memory(transferred(L4, RTX_4090)),
        assumed_memory(transferred(ORIN, RTX_A6000)),
        from_traces(MI300X, arguments.data),
    ):
        with_torch(found).save(arguments.out / f"{found.hardware_id}.json")
        print(found.hardware_id, *found.warnings, sep="\n  ")


if __name__ == "__main__":
    main()
