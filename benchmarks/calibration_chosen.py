"""Further tables of `calibration_accuracy.py`: chosen products, further devices, other sources."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from calibration_public import (
    A100,
    DEVICES,
    GEMM_SETS,
    gemms,
    is_model_shape,
    layer_gemms,
)

from costmodel.calibration import Calibration, fit_calibration, list_calibrations
from costmodel.calibration.chosen import chosen_products
from costmodel.calibration.curves import MODEL_ROWS
from costmodel.calibration.dtypes import canonical
from costmodel.uncertainty import SOURCE_MIDDLE, SOURCE_SPREAD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from calibration_public import Public

#: Chosen products, their least width, and how many other shapes they are tested on.
NUMBERS, WIDTH, OTHERS = (64, 256, 512), 512, 3000
#: Products beside 16 row counts of the model's own matrices.
BESIDE = 400
#: FLOP from which a product is large.
LARGE = 2e9
RTX = "nvidia-rtx-4090"
#: What LLMCompass' smallest products take, whatever their size.
FLOOR_S = 30e-6

Table = tuple[str, list[str], list[list[str]]]


def nearest(pool: pd.DataFrame, number: int) -> pd.DataFrame:
    """Return the rows of a table whose sizes are nearest to chosen ones, each once."""
    sizes = np.log(pool[["m", "n", "k"]].to_numpy(dtype=float))
    free = np.ones(len(pool), dtype=bool)
    for product in np.log(chosen_products(number)):
        distance = np.where(free, np.abs(sizes - product).sum(axis=1), np.inf)
        free[int(distance.argmin())] = False
    return pool[~free]


def errors(found: Calibration, rows: pd.DataFrame) -> tuple[np.ndarray, float]:
    """Return the absolute errors in %, and the share inside the 90 % interval in %."""
    label = canonical(str(rows["dtype"].iloc[0]))
    time = found.op_time_s("gemm", dtype=label, **{c: rows[c].to_numpy(float) for c in "mnk"})
    low, high = found.op_interval("gemm", label, rows=rows["m"].to_numpy(float))
    ratio = rows["time_s"].to_numpy() / time
    return 100 * np.abs(1 / ratio - 1), float(100 * np.mean((ratio >= low) & (ratio <= high)))


def sets(public: Public) -> Iterator[tuple[str, str, pd.DataFrame, np.ndarray, pd.DataFrame]]:
    """Yield device, dtype, products, which of them are a model's own, and the other wide ones."""
    for hardware, dtype, source in GEMM_SETS:
        frame = gemms(public, hardware, dtype, source)
        model = is_model_shape(frame)
        pool = frame[~model & (frame["n"] >= WIDTH) & (frame["k"] >= WIDTH)]
        yield hardware, canonical(dtype), frame, model, pool


def chosen(public: Public) -> Table:
    """Fit chosen products of other shapes; predict LLaVA's and CLIP's, and others."""
    rows = []
    for hardware, dtype, frame, model, pool in sets(public):
        cells = [hardware.split("-")[1].upper(), dtype]
        for number in NUMBERS:
            if number >= len(pool):
                cells += ["-", "-"]
                continue
            sample = nearest(pool, number)
            rest = pool.drop(sample.index)
            rest = rest.sample(min(OTHERS, len(rest)), random_state=0)
            found = fit_calibration(sample, hardware, curves=False, resamples=1)
            error, inside = errors(found, frame[model & (frame["m"] >= 64)])
            other, _ = errors(found, rest)
            cells += [f"{error.mean():.1f} ({inside:.0f})", f"{other.mean():.1f}"]
        rows.append(cells)
    header = [f"{n} points: {what}" for n in NUMBERS for what in ("models' (covers %)", "others'")]
    return (
        "Chosen products of shapes other than LLaVA's and CLIP's: MAPE in % on theirs from 64 rows on, "
        f"and on {OTHERS} more",
        ["device", "dtype", *header],
        rows,
    )


def beside(public: Public) -> Table:
    """Fit 16 row counts of the model's own matrices and chosen products together."""
    rows = []
    for hardware, dtype, frame, model, pool in sets(public):
        seen = model & frame["m"].isin(MODEL_ROWS).to_numpy()
        found = fit_calibration(
            pd.concat([frame[seen], nearest(pool, BESIDE)]), hardware, resamples=1
        )
        rest = frame[model & ~seen]
        error, inside = errors(found, rest)
        large = (rest["m"] >= 64).to_numpy()
        rows.append(
            [
                hardware.split("-")[1].upper(),
                dtype,
                f"{error.mean():.1f} / {error[large].mean():.1f}",
                f"{error[large].max():.0f}",
                f"{inside:.0f}",
            ]
        )
    return (
        f"16 row counts of the model's own matrices and {BESIDE} chosen products: MAPE in % on its other row "
        "counts",
        ["device", "dtype", "all rows / m >= 64", "worst, m >= 64", "90 % interval covers"],
        rows,
    )


def left_out(folder: Path) -> Table:
    """Leave one weight matrix of DeepBench's out at a time; points of an RTX 4090's, at random."""
    rows = []
    for device in DEVICES:
        path = folder / device.tables[0]
        if "deepbench" not in path.name or not path.exists():
            continue
        frame = pd.read_csv(path)
        for dtype, part in frame.groupby("dtype"):
            wide = part[(part["n"] >= 256) & (part["k"] >= 256)].assign(weight_copies=1)
            found = list(_one_out(wide, device.ids[0]))
            error = np.concatenate([each for each, _ in found])
            flop = np.concatenate([each for _, each in found])
            rows.append(
                [
                    device.ids[0], str(dtype), "one matrix at a time", f"{len(error)}",
                    f"{error.mean():.1f}", f"{error[flop > LARGE].mean():.1f}", f"{error.max():.0f}",
                ]
            )  # fmt: skip
    path = folder / "gemm_rtx_4090_llmservingsim.parquet"
    if path.exists():
        frame = pd.read_parquet(path)
        for number in NUMBERS:
            order = np.random.default_rng(0).permutation(len(frame))
            found_one = fit_calibration(frame.iloc[order[:number]], RTX, curves=False, resamples=1)
            rest = frame.iloc[order[number:]]
            error, _ = errors(found_one, rest)
            flop = 2.0 * (rest["m"] * rest["n"] * rest["k"]).to_numpy()
            rows.append(
                [
                    RTX, "bf16", f"all but {number}", f"{len(rest)}", f"{error.mean():.1f}",
                    f"{error[flop > LARGE].mean():.1f}", f"{error.max():.0f}",
                ]
            )  # fmt: skip
    header = ["device", "dtype", "left out", "tested", "MAPE %", "above 2 GFLOP", "worst %"]
    return "Left out of the other devices' tables", header, rows


def _one_out(frame: pd.DataFrame, hardware: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for _, rest in frame.groupby(["n", "k"]):
        found = fit_calibration(frame.drop(rest.index), hardware, curves=False, resamples=1)
        yield errors(found, rest)[0], 2.0 * (rest["m"] * rest["n"] * rest["k"]).to_numpy()


def shipped() -> Table:
    """What the shipped files say of points outside their fits."""
    rows = [
        [
            name, each.op_class, each.dtype, f"{each.points}", f"{held.points}", f"{100 * held.mape:.1f}",
            f"{100 * held.coverage:.0f}", held.how.partition(" by")[0],
            "yes" if each.residual is not None else "-",
        ]
        for name in list_calibrations()
        for each in Calibration.load(name).classes.values()
        if (held := each.held_out) is not None
    ]  # fmt: skip
    header = [
        "device",
        "class",
        "dtype",
        "fitted",
        "held out",
        "MAPE %",
        "90 % covers",
        "how",
        "residual",
    ]
    return "The shipped calibrations on points outside their fits", header, rows


def across(public: Public, folder: Path) -> Table:
    """Hold the A100's calibration against other people's products on the same card."""
    tables: list[tuple[str, Any]] = [
        ("microsoft/vidur, four products of a layer", layer_gemms(public))
    ]
    path = folder / "llmcompass_gemm_mi210_a100.csv"
    if path.exists():
        frame = pd.read_csv(path)
        kept = frame["device"].str.contains("A100") & (frame["time_s"] >= 2 * FLOOR_S)
        tables.append(("PrincetonUniversity/LLMCompass, from 60 us", frame[kept]))
    found = Calibration.load(A100)
    z = 1.645 * SOURCE_SPREAD
    rows = []
    for name, frame in tables:
        time = found.op_time_s("gemm", dtype="fp16", **{c: frame[c].to_numpy(float) for c in "mnk"})
        ratio = np.log(frame["time_s"].to_numpy() / time)
        ends = found.op_interval("gemm", "fp16", rows=frame["m"].to_numpy(float))
        low, high = (np.log(end) for end in ends)
        within = np.mean((ratio >= low) & (ratio <= high))
        wide_low, wide_high = (
            SOURCE_MIDDLE - np.hypot(low, z),
            SOURCE_MIDDLE + np.hypot(high, z),
        )
        both = np.mean((ratio >= wide_low) & (ratio <= wide_high))
        rows.append(
            [
                "A100", name, f"{len(ratio)}", f"{math.exp(-np.median(ratio)):.2f}", f"{100 * within:.0f}",
                f"{100 * both:.0f}",
            ]
        )  # fmt: skip
    header = [
        "device", "other source", "points", "predicted / measured", "covers: one table's",
        "covers: with 9 % for the source",
    ]  # fmt: skip
    return "The A100's calibration against other sources' products", header, rows


def tables(public: Public, folder: Path) -> list[Table]:
    """Return all tables of this module: title, header, rows."""
    return [chosen(public), beside(public), left_out(folder), shipped(), across(public, folder)]
