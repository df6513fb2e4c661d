"""Summary of all rows: errors by group, knees, ranks, FLOPs, memory, energy, flags."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from costmodel.quantities import STAGES
from profiling.reconciling.metrics import (
    knee_of,
    leave_one_count_out,
    metrics,
    rank_correlation,
)
from profiling.records.measurement import GENERATION, TOTAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

#: What makes two rows points of one curve over visual tokens.
SERIES = ("model", "dtype", "method", "text_tokens", "batch_size", "mode", "attention", "cache")


def summarise_rows(
    rows: Sequence[dict[str, Any]],
    skipped: Sequence[dict[str, Any]],
    energy: Sequence[dict[str, Any]],
    runs: int,
) -> dict[str, Any]:
    """Return the summary of a reconciliation as plain data.

    Args:
        rows: one per run and stage.
        skipped: runs without times.
        energy: one per energy window.
        runs: runs with times.
    """
    totals = [row for row in rows if row["stage"] == TOTAL]
    return {
        "runs": runs,
        "skipped": len(skipped),
        "time": {
            stage: found
            for stage in (*STAGES, TOTAL, GENERATION)
            if (found := _errors(row for row in rows if row["stage"] == stage)) is not None
        },
        "by_regime": _by(totals, "regime"),
        "by_mode": _by(totals, "mode"),
        "by_method": _by(totals, "method"),
        "series": _series(rows),
        "flops": _equality(rows, "flops"),
        "kernels": _equality(rows, "kernels"),
        "memory": _memory(totals),
        "energy": _energy(energy),
        "above_roof": sum(row["above_roof"] is not None for row in rows),
        "out_of_memory": _out_of_memory(skipped),
        "flagged_rows": sum(bool(row["flags"]) for row in rows),
    }


def _errors(rows: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    items = [row for row in rows if row["predicted_s"] > 0]
    found = metrics(
        [row["predicted_s"] for row in items],
        [row["measured_s"] for row in items],
        low=[row["low_s"] for row in items],
        high=[row["high_s"] for row in items],
        noise=[row["noise_s"] for row in items],
    )
    return None if found is None else found.to_dict()


def _by(rows: Sequence[dict[str, Any]], column: str) -> dict[str, Any]:
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[str(row[column])].append(row)
    found = {name: _errors(items) for name, items in sorted(groups.items())}
    return {name: errors for name, errors in found.items() if errors is not None}


def series_of(
    rows: Sequence[dict[str, Any]], stage: str
) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Return the rows of one stage by curve, each curve ascending in visual tokens.

    Args:
        rows: one per run and stage.
        stage: a stage, or `total`.
    """
    curves: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["stage"] == stage and row["visual_tokens"] is not None:
            curves[tuple(row[name] for name in SERIES)].append(row)
    for items in curves.values():
        items.sort(key=lambda row: int(row["visual_tokens"]))
    return dict(curves)


def medians_by_count(
    rows: Sequence[dict[str, Any]], value: Callable[[dict[str, Any]], float]
) -> tuple[list[int], list[float]]:
    """Return a curve's token counts and the median over its rounds at each."""
    groups: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        groups[int(row["visual_tokens"])].append(value(row))
    counts = sorted(groups)
    return counts, [statistics.median(groups[count]) for count in counts]


def _series(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return for every curve over visual tokens the errors of its shape, order and knee."""
    found = []
    for stage in ("prefill", TOTAL):
        for key, items in series_of(rows, stage).items():
            counts, measured = medians_by_count(items, lambda row: row["measured_s"])
            _, predicted = medians_by_count(items, lambda row: row["predicted_s"])
            if len(counts) < 3 or min(predicted) <= 0:
                continue
            left_out = leave_one_count_out(counts, predicted, measured)
            knees = knee_of(counts, measured), knee_of(counts, predicted)
            found.append(
                {
                    "stage": stage,
                    **dict(zip(SERIES, key, strict=True)),
                    "counts": len(counts),
                    "rank_correlation": rank_correlation(measured, predicted),
                    "leave_one_count_out": None if left_out is None else left_out.to_dict(),
                    "measured_knee": knees[0],
                    "predicted_knee": knees[1],
                    "knee_steps_apart": _steps(counts, *knees),
                    "measured_speedup": measured[-1] / measured[0],
                    "predicted_speedup": predicted[-1] / predicted[0],
                }
            )
    return found


def _steps(counts: Sequence[int], first: int | None, second: int | None) -> int:
    """Return how many steps of the sweep two knees are apart; no knee lies below the first count."""
    places = [-1 if knee is None else list(counts).index(knee) for knee in (first, second)]
    return abs(places[0] - places[1])


def _equality(rows: Sequence[dict[str, Any]], what: str) -> dict[str, Any]:
    pairs = [
        (row[f"measured_{what}"], row[f"predicted_{what}"])
        for row in rows
        if row[f"measured_{what}"] is not None
    ]
    errors = [abs(p / m - 1) if m else float(p != m) for m, p in pairs]
    return {
        "rows": len(pairs),
        "equal": sum(m == p for m, p in pairs),
        "max_relative_error": max(errors, default=None),
    }


def _memory(totals: Sequence[dict[str, Any]]) -> dict[str, Any]:
    pairs = [
        (row["measured_peak_bytes"], row["predicted_peak_bytes"])
        for row in totals
        if row["measured_peak_bytes"] and row["predicted_peak_bytes"]
    ]
    found = metrics([p for _, p in pairs], [m for m, _ in pairs])
    return {"rows": 0} if found is None else {"rows": found.count, **found.to_dict()}


def _energy(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    pairs = [
        (row["predicted_j"], row["measured_j"], row["low_j"], row["high_j"])
        for row in rows
        if row["predicted_j"] and row["measured_j"]
    ]
    known = [pair for pair in pairs if pair[2] is not None and pair[3] is not None]
    found = metrics([p[0] for p in pairs], [p[1] for p in pairs])
    if found is None:
        return {"rows": len(rows)}
    inside = [low <= measured <= high for _, measured, low, high in known]
    return {
        "rows": len(rows),
        **found.to_dict(),
        "coverage": sum(inside) / len(inside) if inside else None,
    }


def _out_of_memory(skipped: Sequence[dict[str, Any]]) -> dict[str, int]:
    rows = [row for row in skipped if row["status"] == "out-of-memory"]
    return {
        "rows": len(rows),
        "predicted": sum(row["predicted_to_fit"] is False for row in rows),
        "not_predicted": sum(row["predicted_to_fit"] is True for row in rows),
    }
