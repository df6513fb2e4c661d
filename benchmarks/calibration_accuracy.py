"""Print how well calibrations predict public measurements that they were not fitted on.

    python benchmarks/calibration_accuracy.py FOLDER [--draws 20]

FOLDER holds the files that `calibration_public` names, or is
`tests/costmodel/calibration/data` for the carried
subset. Every number is a mean absolute percentage error (MAPE) on points outside the fit.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from calibration_chosen import errors, sets, tables
from calibration_public import (
    A100,
    H100,
    LAYER_GEMMS,
    LAYER_STREAMS,
    MODEL_SHAPES,
    attention,
    layer_gemms,
    layer_streams,
    load,
)

from costmodel.calibration import Calibration, fit_calibration
from costmodel.calibration.curves import MODEL_ROWS
from costmodel.calibration.dtypes import canonical
from costmodel.calibration.regression import fit, law_of
from costmodel.calibration.tables import group_points
from hardware_specs import get_hardware

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from calibration_public import Public

    from costmodel.calibration.tables import Group

#: Products of the generic tier.
POINTS = 64
#: Token counts that one layer is calibrated on: the ends of the 128-row stairs, one count inside the
#: uneven stair above 128, then doublings.
LAYER_ROWS = (64, 128, 160, 256, 384, 512, 768, 1280, 2048, 4096)
EDGES = (129, 257, 513)
#: The published rule of thumb: efficiencies, seconds, exponent.
RULE = {
    "compute_efficiency": 0.8,
    "memory_efficiency": 0.8,
    "overhead_s": 3e-6,
    "exponent": 2.4,
}
#: Terms of the law, and what stands for their absence.
TERMS: dict[str, dict[str, float]] = {
    "stairs": {"tail_overlap": 1.0},
    "operands from L2": {"cache_bandwidth_ratio": 1e3},
    "small tiles compute worse": {"small_tile_loss": 0.0},
    "outputs nothing hides": {"epilogue_cost": 0.0},
    "cost of splitting": {"split_overhead_s": 0.0},
    "quantising activations": {"row_overhead_s": 0.0, "quantise_cost": 0.0},
    "ragged rows": {"ragged_cost": 1.0},
}


def mape(predicted: Any, measured: Any) -> float:
    return float(100 * np.mean(np.abs(predicted / measured - 1)))


def as_group(frame: pd.DataFrame, hardware: str) -> Group:
    groups, _ = group_points([("", frame)], get_hardware(hardware).device_names)
    return groups[0]


def table(title: str, header: list[str], rows: list[list[str]]) -> None:
    print(f"\n{title}\n")
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def draws(pool: Group, number: int) -> Iterator[Group]:
    for seed in range(number):
        rng = np.random.default_rng(seed)
        yield pool.take(rng.choice(len(pool), POINTS, replace=False))


def generic_tier(public: Public, number: int) -> None:
    """Fit 64 random products of other shapes; predict LLaVA's and CLIP's from 64 rows on."""
    rows, terms = [], []
    for hardware, dtype, frame, model, wide in sets(public):
        tested = frame[model & (frame["m"] >= 64)]
        test, pool = as_group(tested, hardware), as_group(wide, hardware)
        calibration = Calibration.load("generic", get_hardware(hardware))
        device = calibration.device
        found = calibration.lookup("gemm", dtype)
        law = law_of("gemm", dtype, found.kernels, device)
        smooth = law_of("gemm", dtype, "smooth", device)
        ideal = dict.fromkeys(("compute_efficiency", "memory_efficiency"), 1.0)
        roof = smooth.time_s({**ideal, "overhead_s": 0.0, "exponent": 300.0}, test.sizes)
        fitted: dict[str, list[float]] = {"smooth": [], "tile": []}
        lacking: dict[str, list[float]] = {
            name: [] for name, off in TERMS.items() if set(off) <= set(law.priors)
        }
        covered = []
        for sample in draws(pool, number):
            values = fit(smooth, sample)
            fitted["smooth"].append(mape(smooth.time_s(values, test.sizes), test.time_s))
            values = fit(law, sample)
            time = law.time_s(values, test.sizes)
            fitted["tile"].append(mape(time, test.time_s))
            for name in lacking:
                kept = {n: p for n, p in law.priors.items() if n not in TERMS[name]}
                bare = replace(law, priors=kept, fixed=TERMS[name])
                predicted = bare.time_s(fit(bare, sample), test.sizes)
                lacking[name].append(mape(predicted, test.time_s))
        for seed in range(min(number, 5)):
            picked = np.random.default_rng(seed).choice(len(pool), POINTS, replace=False)
            full = fit_calibration(wide.iloc[picked], hardware, curves=False, resamples=1)
            covered.append(errors(full, tested)[1])
        tile = fitted["tile"]
        rows.append(
            [
                hardware.split("-")[1].upper(),
                dtype,
                f"{len(test)}",
                f"{mape(roof, test.time_s):.1f}",
                f"{mape(smooth.time_s(RULE, test.sizes), test.time_s):.1f}",
                f"{mape(law.time_s(found.values, test.sizes), test.time_s):.1f}",
                f"{np.median(fitted['smooth']):.1f}",
                f"{np.median(tile):.1f} ({np.quantile(tile, 0.1):.1f}-{np.quantile(tile, 0.9):.1f})",
                f"{np.mean(covered):.0f}",
            ]
        )
        terms.append(
            [rows[-1][0], dtype, f"{np.median(tile):.1f}"]
            + [
                f"{np.median(lacking[name]) - np.median(tile):+.1f}" if name in lacking else "-"
                for name in TERMS
            ]
        )
    table(
        f"Generic tier: {POINTS} random products of other shapes, tested on LLaVA and CLIP shapes, "
        f"m >= 64. MAPE in %, median over {number} draws (10th to 90th percentile)",
        [
            "device",
            "dtype",
            "tested",
            "datasheet roofline",
            "rule .8/.8/3 us/2.4",
            "`generic`",
            "smooth law, fitted",
            "tile law, fitted",
            "90 % interval covers",
        ],
        rows,
    )
    table(
        "What each term buys: points of MAPE lost when it is switched off and the rest refitted",
        ["device", "dtype", "tile law", *TERMS],
        terms,
    )


def model_tier(public: Public) -> None:
    """Fit at most 16 row counts of the model's own weight matrices; predict all others."""
    rows = []
    for hardware, dtype, frame, model, _ in sets(public):
        frame = frame[model]
        seen = frame["m"].isin(MODEL_ROWS).to_numpy()
        calibration = fit_calibration(frame[seen], hardware, resamples=1)
        rest = frame[~seen]
        whole, inside = errors(calibration, rest)
        bare, _ = errors(without(calibration, shapes=()), rest)
        line = 100 * np.abs(_interpolated(frame[seen], rest) / rest["time_s"].to_numpy() - 1)
        large, edge = (rest["m"] >= 64).to_numpy(), rest["m"].isin(EDGES).to_numpy()
        rows.append(
            [
                hardware.split("-")[1].upper(),
                dtype,
                f"{frame[seen]['m'].nunique()}",
                f"{len(rest)}",
                *(f"{each.mean():.1f} / {each[large].mean():.1f}" for each in (line, bare, whole)),
                f"{whole[edge].mean():.1f}" if edge.any() else "-",
                f"{_floor(frame):.1f}",
                f"{inside:.0f}",
            ]
        )
    table(
        "Model-specific tier: 16 row counts of each weight matrix, tested on every other row count. "
        "MAPE in %: all rows / m >= 64",
        [
            "device",
            "dtype",
            "rows fitted",
            "tested",
            "interpolation in m",
            "tile law alone",
            "tile law and curves",
            "m = 129, 257, 513",
            "all other rows known, smoothed",
            "90 % interval covers",
        ],
        rows,
    )


def _interpolated(seen: pd.DataFrame, rest: pd.DataFrame) -> np.ndarray:
    out = np.empty(len(rest))
    for n, k in MODEL_SHAPES:
        mine = seen[(seen["n"] == n) & (seen["k"] == k)].sort_values("m")
        mask = ((rest["n"] == n) & (rest["k"] == k)).to_numpy()
        out[mask] = np.exp(
            np.interp(np.log(rest["m"][mask]), np.log(mine["m"]), np.log(mine["time_s"]))
        )
    return out


def without(found: Calibration, **parts: Any) -> Calibration:
    """Return a calibration whose classes lack some corrections of the law."""
    classes = {key: replace(each, **parts) for key, each in found.classes.items()}
    return replace(found, classes=classes)


def _floor(frame: pd.DataFrame) -> float:
    """Return the error of every point against the median ratio of its neighbours in m.

    It knows every row count of the matrix but the one it predicts: what is left is the scatter of
    single measurements and of the library's choice of kernels.
    """
    hardware = A100 if frame["device"].str.contains("A100").any() else H100
    label = canonical(str(frame["dtype"].iloc[0]))
    full = without(fit_calibration(frame, hardware, curves=False, resamples=1), residual=None)
    errors = []
    for n, k in MODEL_SHAPES:
        mine = frame[(frame["n"] == n) & (frame["k"] == k)].sort_values("m")
        m, measured = mine["m"].to_numpy(), mine["time_s"].to_numpy()
        ratio = np.log(measured / full.op_time_s("gemm", dtype=label, m=m, n=n, k=k))
        for i in range(len(m)):
            weight = np.exp(-0.5 * (np.log(m / m[i]) / 0.3) ** 2)
            weight[i] = 0.0
            order = np.argsort(ratio)
            total = np.cumsum(weight[order])
            middle = ratio[order][np.searchsorted(total, total[-1] / 2)]
            errors.append(abs(np.exp(middle - ratio[i]) - 1))
    return float(100 * np.mean(errors))


def one_layer(public: Public) -> None:
    """Calibrate one Llama-2-7B layer on ten token counts; predict it at all others."""
    products, streams = layer_gemms(public), layer_streams(public, embedding=False)
    calibration = fit_calibration(
        [products[products["m"].isin(LAYER_ROWS)], streams[streams["m"].isin(LAYER_ROWS)]],
        A100,
        resamples=1,
    )
    tokens = public.layer["num_tokens"].to_numpy()
    measured = public.layer[[*LAYER_GEMMS, *LAYER_STREAMS]].sum(axis=1).to_numpy()
    time = np.zeros(len(tokens))
    for n, k in LAYER_GEMMS.values():
        time += calibration.op_time_s("gemm", dtype="fp16", m=tokens, n=n, k=k)
    for op_class, per_token in LAYER_STREAMS.values():
        time += calibration.op_time_s(op_class, dtype="fp16", bytes=tokens * per_token)
    unseen = ~np.isin(tokens, LAYER_ROWS)
    error = 100 * np.abs(time / measured - 1)
    worst = np.flatnonzero(unseen)[error[unseen].argmax()]
    table(
        "One Llama-2-7B layer on A100 (microsoft/vidur), calibrated on ten token counts",
        ["tested counts", "MAPE %", "p90 %", "worst %", "worst at"],
        [
            [
                f"{unseen.sum()}",
                f"{error[unseen].mean():.2f}",
                f"{np.quantile(error[unseen], 0.9):.1f}",
                f"{error[worst]:.1f}",
                f"{tokens[worst]}",
            ]
        ],
    )
    pairs = [(128, 136), (384, 392), (768, 776), (128, 144), (1024, 1040), (512, 520)]
    at = {int(t): i for i, t in enumerate(tokens)}
    table(
        "Its stairs: change of time from one token count to the next, in %",
        ["tokens", "measured", "predicted"],
        [
            [
                f"{a} -> {b}",
                f"{100 * (measured[at[b]] / measured[at[a]] - 1):+.0f}",
                f"{100 * (time[at[b]] / time[at[a]] - 1):+.0f}",
            ]
            for a, b in pairs
        ],
    )


def attentions(public: Public, number: int) -> None:
    """Fit 64 random attention shapes; predict the others."""
    rows = []
    for hardware in (A100, H100):
        frame = attention(public, hardware)
        group = as_group(frame, hardware)
        device = Calibration.load("generic", get_hardware(hardware)).device
        blocks = "flash-128" if hardware == A100 else "flash-192"
        smooth = law_of(group.op_class, "bf16", "split-keys", device)
        law = law_of(group.op_class, "bf16", blocks, device)
        fitted: dict[str, list[float]] = {"smooth": [], "blocks": []}
        covered = []
        for seed in range(number):
            order = np.random.default_rng(seed).permutation(len(group))
            sample, rest = group.take(order[:POINTS]), group.take(order[POINTS:])
            for name, each in (("smooth", smooth), ("blocks", law)):
                time = each.time_s(fit(each, sample), rest.sizes)
                fitted[name].append(mape(time, rest.time_s))
            if seed < 3:
                full = fit_calibration(frame.iloc[order[:POINTS]], hardware, resamples=1)
                low, high = full.op_interval(group.op_class, "bf16")
                ratio = rest.time_s / full.op_time_s(group.op_class, dtype="bf16", **rest.sizes)
                covered.append(np.mean((ratio >= low) & (ratio <= high)))
        rows.append(
            [
                hardware.split("-")[1].upper(),
                group.op_class,
                f"{len(group) - POINTS}",
                f"{np.median(fitted['smooth']):.1f}",
                f"{np.median(fitted['blocks']):.1f}",
                f"{100 * float(np.mean(covered)):.0f}",
            ]
        )
    table(
        f"Attention: {POINTS} random shapes, tested on all others. MAPE in %, median of {number}",
        ["device", "class", "tested", "smooth law", "block law", "90 % interval covers"],
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--draws", type=int, default=20)
    arguments = parser.parse_args()
    public = load(arguments.folder)
    generic_tier(public, arguments.draws)
    model_tier(public)
    one_layer(public)
    attentions(public, min(arguments.draws, 10))
    for each in tables(public, arguments.folder):
        table(*each)


if __name__ == "__main__":
    main()
