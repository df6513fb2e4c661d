"""Measured figures of papers against what their work allows: which of them cannot be what they say."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from costmodel.models import load_model
from costmodel.reproduce.measured_limits import (
    calibrated_seconds,
    encoder_flops,
    ideal_seconds,
    peak_gigabytes,
    prompt_flops,
)
from costmodel.reproduce.measured_published import MeasuredTable
from costmodel.reproduce.published import load_published
from costmodel.reproduce.reproduction import Column, Reproduction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from costmodel.reproduce.measured_published import MeasuredRow, MeasuredSource

TITLE = "Measured times, speed-ups and memory of papers, against what their work allows"
POSSIBLE, CANNOT = "possible", "cannot be"

COLUMNS = (
    Column("source", "Source"),
    Column("paper", "Paper"),
    Column("devices", "Devices it may be"),
    Column("model", "Model"),
    Column("method", "Model, method"),
    Column("precision", "Prec."),
    Column("quantity", "What"),
    Column("visual_tokens", "Tokens", digits=4),
    Column("unit", "Unit"),
    Column("published", "Published"),
    Column("limit", "Limit", digits=4),
    Column("efficiency", "Of the limit", digits=3),
    Column("speedup_published", "Speed-up", digits=3),
    Column("speedup_roofline", "ideal", digits=3),
    Column("speedup_calibrated", "law", digits=3, wide=True),
    Column("verdict", "Verdict"),
    Column("inferred", "Inferred"),
    Column("note", "Remark"),
)
_SHOWN = (
    "method", "precision", "quantity", "visual_tokens", "unit", "published", "limit", "efficiency",
    "speedup_published", "speedup_roofline", "speedup_calibrated", "verdict",
)  # fmt: skip
#: Fewer tokens that take this much longer are against the trend, not noise.
TREND_NOISE = 1.01


def _row(
    source: MeasuredSource, row: MeasuredRow, quantity: str, reasons: Sequence[str], **values: Any
) -> dict[str, Any]:
    """Return a row with its verdict: it cannot be for these reasons, or is possible."""
    found: dict[str, Any] = {
        "source": source.label,
        "paper": str(source.source),
        "devices": ", ".join(source.devices) or None,
        "model": row.model,
        "method": f"{row.model}, {row.method}",
        "precision": row.precision,
        "quantity": quantity,
        "visual_tokens": row.tokens,
        "verdict": CANNOT if reasons else POSSIBLE,
        "inferred": ", ".join(row.inferred) or None,
        "note": "; ".join(reasons) or None,
        "key": source.key,
    }
    return dict.fromkeys(column.name for column in COLUMNS) | found | values


def _vanilla(source: MeasuredSource, row: MeasuredRow) -> MeasuredRow | None:
    """Return the unreduced row that a row is compared with: same shape, same precision."""
    for other in source.rows:
        same = other.shape == row.shape and other.precision == row.precision
        if other.method == "vanilla" and same and (row.encoder is None or other.model == row.model):
            return other
    return None


def _time_row(source: MeasuredSource, row: MeasuredRow) -> dict[str, Any]:
    measured = row.time_s or 0.0
    roof = ideal_seconds(row, source.devices)
    scale = 1e3 if row.unit == "ms" else 1.0
    reasons = [*_schedule_reasons(row), *_trend_reasons(source, row)]
    if measured < roof:
        reasons.append(
            f"faster than the roofline of {source.devices[0]} at {row.precision}: "
            f"{roof * scale:.4g} {row.unit} for its work alone"
        )
    speedups: dict[str, Any] = {}
    base = _vanilla(source, row)
    if base is not None and base is not row and base.time_s:
        speedups["speedup_published"] = base.time_s / measured
        speedups["speedup_roofline"] = ideal_seconds(base, source.devices) / roof
        calibrated = [calibrated_seconds(each, source.devices) for each in (base, row)]
        if calibrated[0] is not None and calibrated[1] is not None:
            speedups["speedup_calibrated"] = calibrated[0] / calibrated[1]
    return _row(
        source, row, "time", reasons, unit=row.unit, published=row.time, limit=roof * scale,
        efficiency=roof / measured, **speedups,
    )  # fmt: skip


def _schedule_reasons(row: MeasuredRow) -> list[str]:
    """Say why a method cannot have the mean token count that a row states."""
    if row.shape is None or row.tokens is None or not row.full_layers:
        return []
    layers = load_model(row.shape).text.num_layers
    least = (row.of or 576) * row.full_layers / layers
    if row.tokens >= least:
        return []
    return [
        f"a mean of {row.tokens:g} visual tokens is out of reach of {row.method}: its first "
        f"{row.full_layers} of {layers} layers see all {row.of or 576}, which makes {least:g} alone"
    ]


def _trend_reasons(source: MeasuredSource, row: MeasuredRow) -> list[str]:
    """Say where fewer tokens of the same method take longer."""
    if row.tokens is None or row.time_s is None:
        return []
    name = row.method.split(" R=")[0]
    slower = [
        other
        for other in source.rows
        if other.method.split(" R=")[0] == name
        and (other.model, other.precision) == (row.model, row.precision)
        and (other.tokens or 0) > row.tokens
        and row.time_s > TREND_NOISE * (other.time_s or math.inf)
    ]
    if not slower:
        return []
    other = max(slower, key=lambda item: item.tokens or 0)
    return [
        f"slower than the same method with more tokens ({other.tokens:g} in {other.time} {row.unit})"
    ]


def _memory_row(source: MeasuredSource, row: MeasuredRow) -> dict[str, Any]:
    published = float(row.memory or 0)
    predicted = peak_gigabytes(row, source.devices)
    reasons = []
    if published < predicted - 1:
        reasons.append(f"less than the weights and one prompt take, {predicted:.1f} GB")
    base = _vanilla(source, row)
    if base is not None and base is not row and base.memory is not None:
        saved = float(base.memory) - published
        possible = peak_gigabytes(base, source.devices) - predicted
        # Whole gigabytes are printed: a difference of two is known to one.
        if saved - 1 > possible:
            reasons.append(
                f"{saved:g} GB saved, but fewer visual tokens save {possible:.2f} GB at batch 1: the "
                "rest is the allocator's cache, or another setting"
            )
    return _row(
        source, row, "memory", reasons, unit="GB", published=row.memory, limit=predicted,
        efficiency=predicted / published,
    )  # fmt: skip


def _speedup_row(source: MeasuredSource, row: MeasuredRow) -> dict[str, Any]:
    published = float(row.speedup or 0)
    allowed = prompt_flops(row, reduced=False) / prompt_flops(row)
    reasons = []
    if published > allowed:
        reasons.append(
            f"more than the work saved: {allowed:.3g}x fewer FLOPs with {row.text} text tokens, "
            "vision tower included"
        )
    return _row(
        source, row, "speed-up", reasons, unit="x", published=row.speedup, limit=allowed,
        efficiency=published / allowed, speedup_published=published, speedup_roofline=allowed,
    )  # fmt: skip


def _throughput_row(source: MeasuredSource, row: MeasuredRow) -> dict[str, Any]:
    published = float(row.throughput or 0)
    values: dict[str, Any] = {}
    reasons = []
    base = _vanilla(source, row) if row.encoder is not None else source.rows[0]
    if row.encoder is not None and source.devices:
        from costmodel.precision.arithmetic import matrix_peak
        from hardware_specs import get_hardware

        work = encoder_flops(row.encoder, row.merged_per_layer)
        peak = max(matrix_peak(get_hardware(device), row.precision) for device in source.devices)
        values["limit"] = peak / work
        values["efficiency"] = published * work / peak
        if published > peak / work:
            reasons.append(f"above the {row.precision} peak of {source.devices[0]}")
    if base is not None and base is not row:
        values["speedup_published"] = published / float(base.throughput or 0)
        values["speedup_roofline"] = _work(base) / _work(row)
    return _row(
        source, row, "throughput", reasons, unit="img/s", published=row.throughput,
        visual_tokens=None, **values,
    )  # fmt: skip


def _work(row: MeasuredRow) -> float:
    if row.encoder is not None:
        return float(encoder_flops(row.encoder, row.merged_per_layer))
    return float(row.gmacs or 0)


def _rows(source: MeasuredSource) -> list[dict[str, Any]]:
    found = []
    for row in source.rows:
        if row.time is not None:
            found.append(_time_row(source, row))
        elif row.speedup is not None:
            found.append(_speedup_row(source, row))
        else:
            found.append(_throughput_row(source, row))
        if row.memory is not None:
            found.append(_memory_row(source, row))
    return found


def _efficiencies(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Fit one efficiency to each source: the roofline over the measured time, geometric mean."""
    groups: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row["quantity"] in ("time", "throughput") and row["efficiency"] is not None:
            groups[row["key"]].append(row["efficiency"])
    found = {}
    for key, values in groups.items():
        fitted = math.exp(sum(map(math.log, values)) / len(values))
        found[key] = {
            "rows": len(values),
            "efficiency": fitted,
            "lowest": min(values),
            "highest": max(values),
            "mean_error_with_one_efficiency": sum(abs(v / fitted - 1) for v in values)
            / len(values),
        }
    return found


def _speedups(rows: Sequence[dict[str, Any]], predicted: str) -> dict[str, Any]:
    pairs = [
        (row["speedup_published"], row[predicted])
        for row in rows
        if row["speedup_published"] is not None and row[predicted] is not None
    ]
    errors = [abs(guess / truth - 1) for truth, guess in pairs]
    return {
        "rows": len(pairs),
        "mean_error": sum(errors) / len(errors) if errors else None,
        "predicted_over_published": math.exp(
            sum(math.log(guess / truth) for truth, guess in pairs) / len(pairs)
        )
        if pairs
        else None,
    }


def build() -> Reproduction:
    """Judge every row."""
    table = load_published("measured", MeasuredTable)
    rows = [row for source in table.sources for row in _rows(source)]
    wrong = [row for row in rows if row["verdict"] == CANNOT]
    efficiencies = _efficiencies(rows)
    summary = {
        "rows": len(rows),
        "times": sum(row["quantity"] == "time" for row in rows),
        "under_the_roofline": [
            _label(row) for row in wrong if "faster than the roofline" in str(row["note"])
        ],
        "cannot_be": [_label(row) for row in wrong],
        "efficiency_by_source": efficiencies,
        "speedup_roofline": _speedups(rows, "speedup_roofline"),
        "speedup_calibrated": _speedups(rows, "speedup_calibrated"),
    }
    for row in rows:
        del row["key"]
    return Reproduction(
        "measured",
        TITLE,
        "each row names its source; limits are this project's",
        COLUMNS,
        tuple(rows),
        summary,
        (
            *_notes(table, summary),
            *(
                f"{source.label}: {source.what}; {source.note}. {source.source}"
                for source in table.sources
            ),
        ),
        shown=_SHOWN,
        group_by=("source",),
    )


def _label(row: dict[str, Any]) -> str:
    tokens = "" if row["visual_tokens"] is None else f" at {row['visual_tokens']:g} tokens"
    return f"{row['source']}: {row['method']}{tokens}, {row['quantity']}"


def _notes(table: MeasuredTable, summary: dict[str, Any]) -> tuple[str, ...]:
    under = len(summary["under_the_roofline"])
    ideal, law = summary["speedup_roofline"], summary["speedup_calibrated"]
    fitted = ", ".join(
        f"{key} {found['efficiency']:.2f} ({found['lowest']:.2f} to {found['highest']:.2f})"
        for key, found in summary["efficiency_by_source"].items()
    )
    notes = [
        f"{under or 'None'} of the {summary['times']} measured times {'lie' if under else 'lies'} "
        "under the roofline at its precision.",
        f"One efficiency per source, roofline over measured time: {fitted}. Within a source it falls "
        "with the token count: no single constant turns FLOPs into time.",
        f"Speed-ups: the roofline promises {ideal['predicted_over_published']:.2f} times the "
        f"published one over {ideal['rows']} rows (mean error {ideal['mean_error']:.0%})"
        + (
            f"; eager PyTorch under the device's calibration "
            f"{law['predicted_over_published']:.2f} times over {law['rows']} "
            f"(mean error {law['mean_error']:.0%})."
            if law["rows"]
            else "."
        ),
    ]
    same_die = {
        source.key: source.rows[0].time_s
        for source in table.sources
        if source.key in ("llava-mini-a100", "llava-mini-a800")
    }
    if len(same_die) == 2:
        slow, fast = max(same_die.values(), key=float), min(same_die.values(), key=float)  # type: ignore[arg-type]
        notes.append(
            f"LLaVA-Mini times the same die {float(slow or 0) / float(fast or 1):.2f} times apart "
            "(A100 and A800 have the same peaks and nearly the same memory): one of the two waits for "
            "its host."
        )
    return tuple(notes)
