"""The figures of a reconciliation, by name."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any

from costmodel.plots import PlacedOp, plot_roofline
from costmodel.plots.latency import LatencyCurve, MeasuredPoints, latency_curve, plot_latency
from profiling.reconciling.metrics import knee_of
from profiling.reconciling.opclasses import pass_name, passes_of
from profiling.reconciling.summary import SERIES, medians_by_count, series_of
from profiling.report.plot_accuracy import plot_accuracy
from profiling.report.plot_gap import plot_gap, plot_gap_over_tokens
from profiling.report.plot_quantity import plot_quantity
from profiling.subject.plans import TOWER_PLAN

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

    from profiling.reconciling.reconciliation import Reconciliation

#: Curves with fewer token counts than this are no curves.
MIN_COUNTS = 3


def subtitle(result: Reconciliation, extra: str = "") -> str:
    """Return the line that says device, software and calibration, behind `extra` words."""
    software = result.software.get("torch")
    parts = [
        extra,
        result.hardware.name,
        f"torch {software}" if software else "",
        f"calibration {result.calibration_name}" if result.calibration else "uncalibrated",
    ]
    return ", ".join(part for part in parts if part)


def series_name(key: Sequence[Any], *, short: bool = False) -> str:
    """Return the words that describe a curve, from its values in the order of `SERIES`.

    The short form leaves out the model, dtype and text.

    >>> series_name(("llava-1.5-7b", "bf16", "none", 40, 8, "eager", "sdpa", "cold"))
    'llava-1.5-7b bf16, 40 text tokens, batch 8, eager, cold cache'
    """
    named = dict(zip(SERIES, key, strict=True))
    words = [] if short else [f"{named['model']} {named['dtype']}"]
    if named["method"] != "none":
        words.append(named["method"])
    if not short:
        words.append(f"{named['text_tokens']} text tokens")
    if named["batch_size"] != 1 or not short:
        words.append(f"batch {named['batch_size']}")
    words.append(str(named["mode"]))
    # The usual ones go without saying.
    unusual = [name for name in ("attention", "cache") if named[name] not in ("sdpa", "warm")]
    words += [f"{named[name]} {name}" for name in unusual]
    return ", ".join(words)


def reconciliation_figures(result: Reconciliation) -> dict[str, Figure]:
    """Return the figures: accuracy; latency, memory, energy, gap over tokens; waterfalls; roofline."""
    figures = {
        "predicted-vs-measured": plot_accuracy(
            [row for row in result.rows if row["stage"] == "total"] or result.rows,
            title=subtitle(result),
        )
    }
    curves = series_of(result.rows, "total")
    long = {
        key: rows
        for key, rows in curves.items()
        if len({row["visual_tokens"] for row in rows}) >= MIN_COUNTS
    }
    groups: dict[tuple[Any, ...], dict[tuple[Any, ...], list[dict[str, Any]]]] = {}
    for key, rows in long.items():
        named = dict(zip(SERIES, key, strict=True))
        same = tuple(named[name] for name in ("model", "dtype", "text_tokens", "batch_size"))
        groups.setdefault(same, {})[key] = rows
    for index, (same, members) in enumerate(groups.items()):
        number = "" if len(groups) == 1 else f"-{index + 1}"
        figures[f"latency{number}"] = measured_latency(result, same, members)
    figures |= _quantities(result)
    for index, (key, rows) in enumerate(long.items()):
        figures[f"gap-{index + 1}"] = plot_gap_over_tokens(
            rows, title=subtitle(result, series_name(key))
        )
    for label, row in _extremes(result).items():
        figures[f"waterfall-{label}"] = plot_gap(
            row, title=subtitle(result, f"{series_name([row[n] for n in SERIES])}, "
                                f"{row['visual_tokens']} visual tokens")
        )  # fmt: skip
    figures |= _rooflines(result)
    return figures


def _quantities(result: Reconciliation) -> dict[str, Figure]:
    """Return memory and energy over visual tokens, where enough counts were measured."""
    held = [row for row in result.rows if row["measured_peak_bytes"] is not None]
    spent = [row for row in result.energy if row["stage"] == "total"]
    wanted = (
        ("memory", held, "measured_peak_bytes", "predicted_peak_bytes", "peak memory", "GB", 1e9),
        ("energy", spent, "measured_j", "predicted_j", "energy to the first token", "J", 1.0),
    )
    figures = {}
    for name, rows, measured, predicted, what, unit, scale in wanted:
        curves = {}
        for key, members in series_of(rows, "total").items():
            counts, values = medians_by_count(members, itemgetter(measured))
            known = all(row[predicted] is not None for row in members)
            guesses: list[Any] = [None] * len(counts)
            if known:
                guesses = medians_by_count(members, itemgetter(predicted))[1]
            if len(counts) >= MIN_COUNTS:
                curves[series_name(key)] = list(zip(counts, values, guesses, strict=True))
        if curves:
            figures[name] = plot_quantity(
                curves, what=what, unit=unit, scale=scale, title=subtitle(result)
            )
    return figures


def measured_latency(
    result: Reconciliation,
    same: tuple[Any, ...],
    members: dict[tuple[Any, ...], list[dict[str, Any]]],
) -> Figure:
    """Return measured medians over predicted lines for curves of one model, dtype, text length and batch.

    `same` are these four, `members` the rows of each curve.
    """
    import numpy as np

    points, lines = [], []
    for key, rows in members.items():
        counts, measured = medians_by_count(rows, lambda row: row["measured_s"])
        _, noise = medians_by_count(rows, lambda row: row["noise_s"] or 0.0)
        name = series_name(key, short=True)
        points.append(MeasuredPoints(f"{name}: measured", counts, measured, noise))
        label = f"{name}: predicted"
        if rows[0]["method"] == "none":
            lines.append(_every_count(result, rows, label))
            continue
        predicted, low, high = (
            np.asarray(medians_by_count(rows, itemgetter(column))[1])
            for column in ("predicted_s", "low_s", "high_s")
        )
        floor, kernels = _host_floor(rows)
        lines.append(
            LatencyCurve(
                label,
                np.asarray(counts),
                predicted,
                low,
                high,
                floor,
                kernels,
                knee_of(counts, predicted.tolist()),
                "90 % interval" if result.calibration else "full to no overlap",
            )
        )
    model, dtype, text, batch = same
    title = subtitle(result, f"{model} {dtype}, batch {batch}, {text} text tokens")
    return plot_latency(lines, title=title, measured=points)


def _every_count(
    result: Reconciliation, rows: Sequence[dict[str, Any]], label: str
) -> LatencyCurve:
    """Return the prediction at every token count, stairs and all, where no method stands between."""
    first = rows[0]
    return latency_curve(
        first["model"],
        result.hardware,
        execution=first["execution"],
        tower_execution=TOWER_PLAN,
        calibration=result.calibration,
        most=int(rows[-1]["visual_tokens"]),
        label=label,
        precision=first["dtype"],
        text_tokens=first["text_tokens"],
        batch_size=first["batch_size"],
        attention="eager" if first["attention"] == "eager" else "flash",
    )


def _host_floor(rows: Sequence[dict[str, Any]]) -> tuple[float | None, int | None]:
    """Return the launch time of the smallest run, where the host bounds any of them."""
    bound = [row for row in rows if row["regime"] == "host"]
    if not bound:
        return None, None
    first = min(bound, key=lambda row: int(row["visual_tokens"]))
    return float(first["predicted_s"]), int(first["predicted_kernels"])


def _extremes(result: Reconciliation) -> dict[str, dict[str, Any]]:
    """Return the total rows with the most and the fewest visual tokens of the longest curve."""
    curves = series_of(result.rows, "total")
    if not curves:
        return {}
    rows = max(curves.values(), key=len)
    return (
        {"most-tokens": rows[-1], "fewest-tokens": rows[0]} if len(rows) > 1 else {"run": rows[0]}
    )


def _rooflines(result: Reconciliation) -> dict[str, Figure]:
    passes = passes_of(result.ops)
    figures = {}
    for index, (key, rows) in enumerate(passes.items()):
        words = pass_name(key)
        number = "" if len(passes) == 1 else f"-{index + 1}"
        figures[f"roofline{number}"] = plot_roofline(
            result.hardware, _placed(rows, "predicted_s"), dtype=rows[0]["dtype"],
            title=subtitle(result, words), measured=_placed(rows, "measured_s"),
        )  # fmt: skip
    return figures


def _placed(rows: Sequence[dict[str, Any]], time: str) -> list[PlacedOp]:
    return [
        PlacedOp(
            f"{row['stage']} {row['name']}", row["op_class"], row["flops"],
            row["hbm_bytes"], row[time],
        )
        for row in rows
        if row["flops"] > 0 and row["hbm_bytes"] > 0 and row[time] > 0
    ]  # fmt: skip


def save_figures(
    figures: dict[str, Figure], folder: str | Path, *, suffix: str = ".svg"
) -> list[Path]:
    """Write figures into a folder, created when missing, under their names and return the paths.

    The suffix is `.svg`, `.png` or `.pdf`.

    Raises:
        OutputError: the folder cannot be written.
    """
    from costmodel.plots import save_figure
    from hardware_specs.files.writing import prepare_folder

    target = prepare_folder(folder)
    return [save_figure(figure, target / f"{name}{suffix}") for name, figure in figures.items()]
