"""Fit the calibrations of V100, T4, RTX 4090 and RTX A6000, and add small kernels to every shipped one.

    python benchmarks/calibration_fit_devices.py FOLDER [--out costmodel/calibration/data]

Run after `calibration_fit_public.py`, whose products and attentions of A100 and H100 it leaves alone. FOLDER
holds the tables of `calibration_public.DEVICES` and `llama2_7b_layer_small_ops_h100.csv` (microsoft/vidur).
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from calibration_public import (
    A100,
    DEVICES,
    H100,
    LAYER_EMBEDDING,
    LAYER_STREAMS,
    Public,
    layer_streams,
    named,
    read,
    show_held_out,
    source_of,
)
from in_models import shares, with_parameter, with_share

from costmodel.calibration import Calibration, ClassParameters, Parameter, fit_calibration
from costmodel.calibration.file import DATA

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Share of the bandwidth, seconds of a launch, share out of the L2 cache, over the bandwidth. From
#: profiler traces of Qwen1.5-0.5B, ViT-B/16 and BERT on an H100 (AMD-AGI/TraceLens at 171dd74, MIT);
#: checked on traces of other models there, and the concatenation on decode steps of an A100.
TORCH = {
    "cat": (0.276, 3.41e-6, 0.28),
    "strided": (0.382, 2.35e-6, 0.48),
    "layer_norm": (0.33, 2.88e-6, 0.47),
    "norm_chain": (0.62, 2.2e-6, 0.9),
    "softmax": (0.23, 2.5e-6, 0.23),
}
TRACES = "PyTorch's own kernels in profiler traces on an H100 (AMD-AGI/TraceLens)"
#: Whose small ops the H100's are.
SMALL_OPS = " Small ops: microsoft/vidur (MIT)."
LEVELS = {0.01: -2.326, 0.05: -1.645, 0.25: -0.674, 0.5: 0.0, 0.75: 0.674, 0.95: 1.645, 0.99: 2.326}
#: What a model's weights, never in the cache, reach of the bandwidth: DeepBench reads them from it.
COLD_WEIGHTS = 0.82


def spread(middle: float, sigma: float) -> tuple[tuple[float, float], ...]:
    """Return the quantiles of a normal distribution of log ratios."""
    return tuple((level, middle + sigma * z) for level, z in LEVELS.items())


def torch_classes(hardware: str) -> Iterable[ClassParameters]:
    """Return the classes of PyTorch's own kernels: the same shares of a bandwidth on every device."""
    for op_class, (share, overhead, cached) in TORCH.items():
        values = {
            "compute_efficiency": 0.5,
            "memory_efficiency": share,
            "overhead_s": overhead,
            "exponent": 3.0,
            "l2_bandwidth_ratio": cached,
        }
        near = hardware in (A100, H100)
        yield ClassParameters(
            op_class,
            "bf16",
            {name: Parameter(value) for name, value in values.items()},
            f"transferred from {TRACES}" if near else f"assumed: as {TRACES}",
            quantiles=spread(0.0, 0.15 if hardware == H100 else 0.2 if near else 0.3),
        )


def with_torch(found: Calibration) -> Calibration:
    """Return the calibration with the classes of PyTorch's own kernels."""
    more = {(each.op_class, each.dtype): each for each in torch_classes(found.hardware_id)}
    return replace(found, classes={**found.classes, **more})


def cold(found: Calibration) -> Calibration:
    """Return a calibration of warm weights for a model's, which are cold: predictions are always cold."""
    for key, each in found.classes.items():
        share = each.values["memory_efficiency"]
        if each.measured and share > COLD_WEIGHTS:
            said = (
                f"{each.provenance}; memory_efficiency is that of weights outside the cache, "
                f"{share:.2f} was fitted on weights inside it"
            )
            value = Parameter(COLD_WEIGHTS, 0.7, 0.92)
            found = with_parameter(found, key, "memory_efficiency", value, said)
    return found


def h100_streams(folder: Path) -> pd.DataFrame:
    """Return a Llama-2-7B layer's small ops on an H100, as serving engines run them."""
    layer = pd.read_csv(folder / "llama2_7b_layer_small_ops_h100.csv")
    layer = layer[layer["num_tensor_parallel_workers"] == 1]
    columns = ["num_tokens", *LAYER_STREAMS, *LAYER_EMBEDDING]
    medians = layer[columns].groupby("num_tokens", as_index=False).median()
    return layer_streams(Public(medians, medians, medians))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=DATA)
    arguments = parser.parse_args()
    base = with_torch(Calibration.load("generic"))
    base.save(arguments.out / "generic.json")
    with_torch(Calibration.load(A100)).save(arguments.out / f"{A100}.json")
    before = Calibration.load(H100)
    found = fit_calibration(h100_streams(arguments.folder), H100, base=before)
    prefill = found.classes["attention_prefill", "bf16"]
    # Against engines' causal kernels and torch's own on an H100: 0.75 to 1.5 of the encoder's law.
    ends = (math.log(0.75), math.log(1.5))
    wide = replace(prefill, quantiles=spread(sum(ends) / 2, (ends[1] - ends[0]) / 2 / 1.645))
    found = replace(
        found,
        software=before.software,
        attribution=f"{before.attribution.partition(SMALL_OPS)[0]}{SMALL_OPS}",
        l2_bandwidth_ratio=before.l2_bandwidth_ratio,
        intervals=before.intervals,
        notes=before.notes,
        classes={**found.classes, ("attention_prefill", "bf16"): wide},
        warnings=(
            *(each for each in before.warnings if not each.startswith("not measured")),
            "not measured, parameters assumed: conv, attention_prefill, attention_decode, copy",
        ),
    )
    found = with_torch(found)
    found = with_share(found, *shares(found, Calibration.load(A100)))
    found.save(arguments.out / f"{H100}.json")
    for device in DEVICES:
        tables = []
        for name in device.tables:
            frame = read(arguments.folder / name)
            if "DeepBench" in device.attribution:
                frame["weight_copies"] = 1
            tables.append(named(frame, source_of(device.attribution)))
        for hardware in device.ids:
            found = fit_calibration(
                tables, hardware, software=device.software, date=device.date,
                attribution=device.attribution, curves=False, base=base,
            )  # fmt: skip
            found = with_torch(replace(found, intervals=base.intervals, notes=base.notes))
            if "DeepBench" in device.attribution:
                found = cold(found)
            found.save(arguments.out / f"{hardware}.json")
            show_held_out(found)


if __name__ == "__main__":
    main()
