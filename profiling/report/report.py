"""The report: one HTML file with everything in it, readable without scripts and in print."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from profiling.reconciling.gap import LABELS, PARTS
from profiling.reconciling.opclasses import by_class
from profiling.reconciling.reconciliation import calibration_words
from profiling.records.measurement import TOTAL
from profiling.report.evidence import contents, environment_section, ops_section, raw_section
from profiling.report.html import definitions, items, number, page, picture, section, table, tag

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from matplotlib.figure import Figure

    from profiling.reconciling.reconciliation import Reconciliation

#: What each figure shows, by the beginning of its name: (alternative text, caption).
CAPTIONS = {
    "predicted-vs-measured": "Every run to its first token. Bars: the prediction's interval "
    "(vertical) and the measurement's own spread (horizontal).",
    "latency": "Lines are predictions at every token count, marks are measured medians.",
    "memory": "Lines are predictions, marks the largest allocation until the first token.",
    "energy": "Lines are predictions from powers fitted to all other windows, marks are measured.",
    "gap": "From the ideal roofline of the language model up: what each part adds.",
    "waterfall": "One run, part by part. Percentages are of the measured time.",
    "roofline": "Ops where the profiler found them (filled) and where they were predicted (hollow).",
}
#: Rows of the table of runs; beyond it, the JSON has them all.
MOST_ROWS = 200
MOST_FLAGS = 60


def report_html(
    result: Reconciliation,
    figures: Mapping[str, Figure] | None = None,
    *,
    svg: Mapping[str, bytes] | None = None,
) -> str:
    """Return the report of a reconciliation as one HTML document.

    `figures` go in by name (`profiling.report.reconciliation_figures` makes them); `svg` has those of them
    that are drawn already.
    """
    title = f"Measured and predicted: {result.hardware.name}"
    sections = {
        "What ran": _overview(result),
        "Flags": _flags(result),
        "How far off": _errors(result),
        "Figures": _pictures(figures or {}, svg or {}),
        "Over visual tokens": _curves(result),
        "Run by run": _runs(result),
        "FLOPs, kernels, memory": _counts(result),
        "By op class": _op_classes(result),
        "Op by op": ops_section(result),
        "Energy": _energy(result),
        "Without a time": _skipped(result),
        "Environment": environment_section(result.records),
        "Raw data": raw_section(result),
    }
    held = {name: text for name, text in sections.items() if text}
    names = [(text.split('id="', 1)[1].split('"', 1)[0], name) for name, text in held.items()]
    head = [tag("h1", title), tag("p", _lead(result), "lead"), contents(names)]
    return page(title, [*head, *held.values()])


def _lead(result: Reconciliation) -> str:
    time = result.summary["time"].get(TOTAL)
    runs = result.summary["runs"]
    if time is None:
        return f"{runs} runs."
    knees = [row for row in result.summary["series"] if row["stage"] == "prefill"]
    text = (
        f"{runs} runs; time to the first token predicted with a mean error of {time['mape']:.1%} "
        f"(worst {time['max']:.1%}, predicted over measured {time['bias']:.3f})"
    )
    if knees:
        near = sum(row["knee_steps_apart"] <= 1 for row in knees)
        text += f"; the knee within one step of the sweep on {near} of {len(knees)} curves"
    return text + "."


def _overview(result: Reconciliation) -> str:
    calibration = result.calibration
    pairs: list[tuple[str, object]] = [
        ("device", f"{result.hardware.name} ({result.hardware.id})"),
        ("software", ", ".join(f"{name} {text}" for name, text in result.software.items())),
        ("measured", " to ".join(dict.fromkeys(date for date in result.dates if date)) or "–"),
        ("calibration", "none" if calibration is None else calibration_words(calibration)),
    ]
    return section("overview", "What was measured", definitions(pairs), items(result.notes))


def _errors(result: Reconciliation) -> str:
    rows: list[Sequence[object]] = []
    groups = [("stage", result.summary["time"])]
    groups += [(name, result.summary[f"by_{name}"]) for name in ("regime", "mode", "method")]
    for group, entries in groups:
        for name, found in entries.items():
            label = name if group == "stage" else f"first token, {group} {name}"
            rows.append(
                [label, found["count"], *(number(found[key], ".1%") for key in
                                          ("mape", "median", "p90", "max")),
                 number(found["bias"], ".3f"), number(found["coverage"], ".0%"),
                 number(found["within_noise"], ".0%")]
            )  # fmt: skip
    heads = (
        "time of", "rows", "mean error", "median", "90th percentile", "worst",
        "predicted / measured", "inside interval", "within noise",
    )  # fmt: skip
    note = (
        "Errors are |predicted / measured - 1|; predicted / measured is a geometric mean. Within "
        "noise: the gap is no larger than the measurement's own spread."
    )
    return section("errors", "How far off", table(heads, rows), tag("p", note, "note"))


def _pictures(figures: Mapping[str, Figure], svg: Mapping[str, bytes]) -> str:
    if not figures:
        return ""
    from costmodel.plots import figure_bytes

    pieces = []
    for name, figure in figures.items():
        caption = next((text for key, text in CAPTIONS.items() if name.startswith(key)), name)
        title = "; ".join(axes.get_title(loc="left").strip() for axes in figure.axes)
        drawn = svg[name] if name in svg else figure_bytes(figure, "svg")
        pieces.append(picture(drawn, f"{title}. {caption}", caption))
    return section("figures", "Figures", *pieces)


def _curves(result: Reconciliation) -> str:
    rows = [
        [
            f"{row['model']} {row['dtype']}, {row['method']}, batch {row['batch_size']}, {row['mode']}",
            row["stage"],
            row["counts"],
            number(row["rank_correlation"], ".3f"),
            number((row["leave_one_count_out"] or {}).get("mape"), ".1%"),
            number((row["leave_one_count_out"] or {}).get("max"), ".1%"),
            number(row["measured_knee"], "d"),
            number(row["predicted_knee"], "d"),
            f"{row['measured_speedup']:.2f}x",
            f"{row['predicted_speedup']:.2f}x",
        ]
        for row in result.summary["series"]
    ]
    if not rows:
        return ""
    heads = (
        "curve over visual tokens", "stage", "token counts", "rank correlation",
        "shape error, mean", "shape error, worst", "knee measured", "knee predicted",
        "most over fewest tokens, measured", "predicted",
    )  # fmt: skip
    note = (
        "Shape error: every token count predicted after scaling by what all the others measured. "
        "Knee: the largest count up to which the time is flat, within 10 % of the one at the fewest tokens."
    )
    return section(
        "curves", "Over visual tokens", table(heads, rows, words=(0, 1)), tag("p", note, "note")
    )


def _runs(result: Reconciliation) -> str:
    # A part that is nowhere is no column.
    parts = [name for name in PARTS if any(row[name] for row in result.rows)]
    heads = (
        "run", "stage", "visual tokens", "measured ms", "predicted ms", "error", "ideal ms",
        *(LABELS[name] for name in parts), "bound",
    )  # fmt: skip
    rows = [
        [
            f"{_run(row)} #{row['round']}",
            row["stage"],
            row["visual_tokens"],
            f"{_ms(row['measured_s'])} ± {_ms(row['noise_s'] and row['noise_s'] / 2, '?')}",
            _ms(row["predicted_s"]),
            number(row["relative_error"], "+.1%"),
            _ms(row["ideal_s"]),
            *(_ms(row[name]) for name in parts),
            row["regime"],
        ]
        for row in result.rows[:MOST_ROWS]
    ]
    note = "The parts, in ms, add up from the ideal to the measured time. "
    if len(result.rows) > MOST_ROWS:
        note += f"The first {MOST_ROWS} of {len(result.rows)} rows; the JSON has all of them. "
    note += (
        "For the stage total the ideal is the language model's prefill alone, which is what papers "
        "quote, and the other stages are parts. Behind ± stands half the measurement's spread."
    )
    return section("runs", "Run by run", table(heads, rows, words=(0, 1)), tag("p", note, "note"))


def _run(row: Mapping[str, Any]) -> str:
    return f"{row['model']} {row['dtype']} {row['method']} b{row['batch_size']} {row['mode']}"


def _ms(seconds: float | None, missing: str = "–") -> str:
    return number(None if seconds is None else seconds * 1e3, ".3f", missing)


def _counts(result: Reconciliation) -> str:
    summary = result.summary
    rows: list[Sequence[object]] = [
        [what, summary[what]["rows"], summary[what]["equal"],
         number(summary[what]["max_relative_error"], ".3%")]
        for what in ("flops", "kernels")
    ]  # fmt: skip
    pieces = [table(("counted", "rows", "equal to the unit", "worst difference"), rows)]
    memory = summary["memory"]
    if memory["rows"]:
        text = (
            f"Peak memory to the first token: {memory['rows']} rows, mean error {memory['mape']:.2%}, "
            f"worst {memory['max']:.2%}, predicted over measured {memory['bias']:.4f}."
        )
        pieces.append(tag("p", text))
    return section("counts", "FLOPs, kernels, memory", *pieces)


def _op_classes(result: Reconciliation) -> str:
    if not result.ops:
        return ""
    heads = (
        "profiler pass", "stage", "op class", "measured ms", "share", "ideal ms", "efficiency ms",
        "unexplained ms", "kernels measured", "kernels predicted", "predicted from",
    )  # fmt: skip
    rows = [
        [
            f"{_run(row)}, {row['visual_tokens']} visual tokens",
            row["stage"],
            row["op_class"],
            _ms(row["measured_s"]),
            number(row["share"], ".1%"),
            _ms(row["ideal_s"]),
            _ms(row["efficiency_s"]),
            _ms(row["unexplained_s"]),
            row["measured_kernels"],
            row["predicted_kernels"],
            row["provenance"],
        ]
        for row in by_class(result.ops)
    ]
    note = "Kernel durations of a profiler pass: no host time and no gaps are in them."
    return section(
        "ops", "By op class", table(heads, rows, words=(0, 1, 2, 10)), tag("p", note, "note")
    )


def _energy(result: Reconciliation) -> str:
    if not result.energy:
        return ""
    heads = (
        "run", "window over", "measured J", "by", "power W", "idle W", "predicted J", "from J",
        "to J", "error",
    )  # fmt: skip
    rows = [
        [
            f"{_run(row)}, {row['visual_tokens']} visual tokens",
            row["covers"],
            number(row["measured_j"]),
            row["method_of_measurement"],
            number(row["power_w"], ".0f"),
            number(row["idle_power_w"], ".0f"),
            number(row["predicted_j"]),
            number(row["low_j"]),
            number(row["high_j"]),
            number(row["relative_error"], "+.1%"),
        ]
        for row in result.energy
    ]
    note = "The powers behind each prediction are fitted from all other windows."
    return section("energy", "Energy", table(heads, rows, words=(0, 1, 3)), tag("p", note, "note"))


def _flags(result: Reconciliation) -> str:
    found: Counter[str] = Counter()
    for row in (*result.rows, *result.energy):
        run = (
            f"{row['model']} {row['dtype']} {row['method']}, {row['visual_tokens']} visual tokens, "
            f"batch {row['batch_size']}, {row['mode']}, {row['stage']}"
        )
        for flag in row["flags"]:
            found[f"{run}: {flag}"] += 1
    if not found:
        return section("flags", "Flags", tag("p", "Nothing is flagged.", "ok"))
    texts = [text if count == 1 else f"{text} ({count} rounds)" for text, count in found.items()]
    more = len(texts) - MOST_FLAGS
    pieces = [items(texts[:MOST_FLAGS], "flags")]
    if more > 0:
        pieces.append(tag("p", f"{more} more are in the JSON.", "note"))
    return section("flags", "Flags", *pieces)


def _skipped(result: Reconciliation) -> str:
    if not result.skipped:
        return ""
    heads = ("run", "status", "reason", "predicted peak GB", "capacity GB", "predicted to fit")
    rows = [
        [
            f"{_run(row)}, {row['visual_tokens']} visual tokens",
            row["status"],
            row["reason"],
            _gb(row["predicted_peak_bytes"]),
            _gb(row["capacity_bytes"]),
            {True: "yes", False: "no", None: "–"}[row["predicted_to_fit"]],
        ]
        for row in result.skipped
    ]
    return section("skipped", "Runs without a time", table(heads, rows, words=(0, 1, 2)))


def _gb(value: float | None) -> str:
    return number(None if value is None else value / 1e9, ".2f")
