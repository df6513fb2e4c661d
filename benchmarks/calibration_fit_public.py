"""Regenerate the shipped calibrations from the public tables.

    python benchmarks/calibration_fit_public.py FOLDER [--out costmodel/calibration/data]

FOLDER holds the files that `calibration_public` names. `generic.json` needs none of them: it is the
priors of the fit.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from calibration_public import (
    A100,
    ATTRIBUTION,
    GEMM_SETS,
    H100,
    MODEL_SHAPES,
    attention,
    gemms,
    layer_streams,
    load,
    show_held_out,
)

from costmodel.calibration import (
    Calibration,
    ClassParameters,
    HeldOut,
    Parameter,
    fit_calibration,
)
from costmodel.calibration.classes import OP_CLASSES, kind_of_class
from costmodel.calibration.curves import MODEL_ROWS
from costmodel.calibration.file import DATA
from costmodel.calibration.host import PRIOR
from costmodel.calibration.intervals import error_quantiles, share_inside
from costmodel.calibration.priors import families_of, priors_of

if TYPE_CHECKING:
    import pandas as pd

#: Assumed ratios measured / predicted of a device nobody calibrated: levels and their logarithms.
#: The priors err by 12 to 37 % on the two devices they are rounded from.
GENERIC_QUANTILES = (
    (0.01, -0.5), (0.05, -0.3), (0.25, -0.1), (0.5, 0.0), (0.75, 0.15), (0.95, 0.5), (0.99, 0.9),
)  # fmt: skip
#: Copies of each weight that the collector of the products goes round.
COPIES = 6
SYNC_S = Parameter(0.0, 0.0, 50e-6)
L2_RATIO = Parameter(2.0, 1.5, 3.5)
NOTES = {
    "host_s_per_kernel": "assumed: a prior from Hugging Face stacks of 2023, 16 to 25 us; depends on host "
    "and software",
    "host_sync_s": "assumed: no stall; one wait for the device costs tens of microseconds",
    "l2_bandwidth_ratio": "assumed: L2 caches of data-centre GPUs read 1.5 to 3.5 times as fast "
    "as their memory",
}
ASSUMED = (
    "assumed: medians of the fit's priors, rounded from A100 and H100 measurements; nothing was "
    "measured on this device"
)


def generic() -> Calibration:
    """Return the uncalibrated defaults."""
    classes = {}
    for op_class in OP_CLASSES:
        kind = kind_of_class(op_class)
        dtypes = ["bf16", "fp32", "tf32"]
        if kind == "gemm":
            dtypes += ["fp8", "w8a8", "w8a16", "w4a16", "w4a4"]
        for dtype in dtypes if kind != "stream" else ["bf16"]:
            family = families_of(op_class, dtype)[0]
            classes[op_class, dtype] = ClassParameters(
                op_class,
                dtype,
                {n: Parameter(p.median) for n, p in priors_of(op_class, dtype, family).items()},
                ASSUMED,
                quantiles=GENERIC_QUANTILES,
                kernels=family,
            )
    return Calibration(
        hardware_id="",
        device_name="",
        software="",
        date="",
        device=None,
        classes=classes,
        host_s_per_kernel=PRIOR.value,
        host_sync_s=SYNC_S.value,
        l2_bandwidth_ratio=L2_RATIO.value,
        intervals={
            "host_s_per_kernel": PRIOR,
            "host_sync_s": SYNC_S,
            "l2_bandwidth_ratio": L2_RATIO,
        },
        notes=NOTES,
        warnings=("every parameter is assumed; measure the device with `vlm-roofline calibrate`",),
    )


def with_pointwise(found: Calibration, streams: pd.DataFrame) -> Calibration:
    """Return the calibration with the class `pointwise`: the residual add's parameters.

    A plain PyTorch kernel, as eager chains are made of. A serving engine's rotary and activation
    kernels are slower, so the interval is read from all three.
    """
    add = found.lookup("residual", "fp16")
    rows = streams[streams["op_class"].isin(["rope", "activation", "residual"])]
    time = found.op_time_s("residual", dtype="fp16", bytes=rows["bytes"].to_numpy())
    ratios = np.log(rows["time_s"].to_numpy() / time)
    each = replace(
        add,
        op_class="pointwise",
        provenance=f"{add.provenance} (residual adds; interval over rotary embedding, SwiGLU "
        f"product and residual add)",
        quantiles=error_quantiles(ratios),
        held_out=HeldOut.of(
            ratios, share_inside(ratios, ratios), "all three kinds of op, in sample"
        ),
    )
    classes = {key: value for key, value in found.classes.items() if key[0] != "pointwise"}
    return replace(
        found,
        classes={**classes, ("pointwise", "fp16"): each},
        warnings=tuple(warning.replace("pointwise, ", "") for warning in found.warnings),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=DATA)
    arguments = parser.parse_args()
    public = load(arguments.folder)
    base = generic()
    base.save(arguments.out / "generic.json")
    for hardware in (A100, H100):
        tables = [gemms(public, h, dtype, s) for h, dtype, s in GEMM_SETS if h == hardware]
        for each in tables:
            each["weight_copies"] = COPIES
        tables.append(attention(public, hardware))
        if hardware == A100:
            # Its device, "NVIDIA A100 80GB", does not tell the form factor; the 80 GB cards' memory
            # bandwidths differ by 5 %.
            tables.append(layer_streams(public))
        found = fit_calibration(
            tables,
            hardware,
            software="vLLM, SGLang, TensorRT-LLM; FlashAttention",
            attribution=ATTRIBUTION if hardware == A100 else ATTRIBUTION.partition(" Pointwise")[0],
            curves=MODEL_SHAPES,
            curve_rows=MODEL_ROWS,
            base=base,
        )
        if hardware == A100:
            found = with_pointwise(found, layer_streams(public))
        # The cache's speed is assumed: the pointwise table has few points that fit the cache.
        found = replace(
            found,
            l2_bandwidth_ratio=L2_RATIO.value,
            intervals=base.intervals,
            notes=NOTES,
        )
        found.save(arguments.out / f"{hardware}.json")
        show_held_out(found)
        print(*found.warnings, sep="\n")


if __name__ == "__main__":
    main()
