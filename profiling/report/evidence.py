"""What a report rests on: the environment of every run, every op, and the raw data to take along."""

from __future__ import annotations

import base64
import gzip
import json
from collections import Counter
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from profiling.reconciling.opclasses import pass_name, passes_of
from profiling.records.measurement import shareable
from profiling.report.html import definitions, items, number, section, table, tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from profiling.reconciling.reconciliation import Reconciliation
    from profiling.records.measurement import Measurement

#: Different values of one key that are named; more are counted.
_MOST_VALUES = 4
#: Rows of the table of ops of one profiler pass; beyond it, the JSON has them all.
_MOST_OPS = 60


def environment_section(records: Sequence[Measurement]) -> str:
    """Return what the runs say of where they ran and how they were sampled; empty without runs."""
    if not records:
        return ""
    found: dict[str, Counter[str]] = {}
    for record in records:
        for name, value in shareable(record).environment.items():
            if value is not None:
                found.setdefault(name, Counter())[_words(value)] += 1
    sampled = {
        "timer": Counter(record.sampling.timer for record in records),
        "why sampling stopped": Counter(str(record.sampling.stop_reason) for record in records),
    }
    pairs = [
        (name.replace("_", " "), _counted(values, len(records)))
        for name, values in (*sorted(found.items()), *sampled.items())
    ]
    missing = Counter(
        f"{name.replace('_', ' ')}: {reason}"
        for record in records
        for name, reason in record.why_missing.items()
    )
    pieces = [definitions(pairs)]
    if missing:
        pieces.append(tag("p", "Not measured, and why:", "note"))
        pieces.append(items(f"{text} ({_runs(count)})" for text, count in missing.most_common(20)))
    return section("environment", "Environment", *pieces)


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={each}" for name, each in sorted(value.items())) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def _counted(values: Counter[str], runs: int) -> str:
    """Return the values, with how many runs have each where it is not all of them."""
    if set(values.values()) == {runs}:
        return next(iter(values))
    shown = [f"{text} ({_runs(count)})" for text, count in values.most_common(_MOST_VALUES)]
    if len(values) > _MOST_VALUES:
        shown.append(f"{len(values) - _MOST_VALUES} more")
    return "; ".join(shown)


def ops_section(result: Reconciliation) -> str:
    """Return every profiler pass op by op, the longest first; empty without a pass."""
    heads = (
        "op", "stage", "class", "measured us", "share", "predicted us", "ideal us", "kernels",
        "predicted", "GFLOP", "MB",
    )  # fmt: skip
    pieces = []
    for key, rows in passes_of(result.ops).items():
        longest = sorted(rows, key=lambda row: -row["measured_s"])
        words = pass_name(key)
        if len(rows) > _MOST_OPS:
            words += f"; the {_MOST_OPS} longest of {len(rows)}, the JSON has all"
        cells = [
            [
                row["name"],
                row["stage"],
                row["op_class"],
                number(row["measured_s"] * 1e6, ".2f"),
                number(row["share"], ".1%"),
                number(row["predicted_s"] * 1e6, ".2f"),
                number(row["ideal_s"] * 1e6, ".2f"),
                row["measured_kernels"],
                row["predicted_kernels"],
                number(row["flops"] / 1e9, ".3f"),
                number(row["hbm_bytes"] / 1e6, ".2f"),
            ]
            for row in longest[:_MOST_OPS]
        ]
        pieces += [tag("p", words, "note"), table(heads, cells, words=(0, 1, 2))]
    return section("every-op", "Op by op", *pieces) if pieces else ""


def raw_section(result: Reconciliation) -> str:
    """Return links that hold the data themselves: nothing is fetched, no script is needed."""
    document = json.dumps(result.to_dict(), indent=1, allow_nan=False) + "\n"
    links = [_download("reconciliation.json.gz", document, "every row of this report")]
    if result.records:
        lines = [
            json.dumps(shareable(record).to_dict(), allow_nan=False) for record in result.records
        ]
        what = f"the {_runs(len(lines))} themselves, every sample of them"
        links.append(_download("runs.jsonl.gz", "\n".join(lines) + "\n", what))
    note = "Unpacked with gunzip, runs.jsonl is read by vlm-roofline measurements, reconcile and report."
    return section("raw", "Raw data", f"<ul>{''.join(links)}</ul>", tag("p", note, "note"))


def _download(name: str, text: str, what: str) -> str:
    packed = gzip.compress(text.encode(), 9, mtime=0)
    data = base64.b64encode(packed).decode("ascii")
    size = f"{len(packed) / 1e3:.0f} kB"
    link = f'<a download="{escape(name)}" href="data:application/gzip;base64,{data}">{escape(name)}</a>'
    return f"<li>{link}: {escape(what)} ({size})</li>"


def contents(parts: Iterable[tuple[str, str]]) -> str:
    """Return links to the parts of a page, by identifier and title."""
    links = " ".join(f'<a href="#{escape(name)}">{escape(title)}</a>' for name, title in parts)
    return f"<nav>{links}</nav>"
