"""Measurements as a table for people: one row per configuration, all its rounds together."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from costmodel.quantities import STAGES
from profiling.records.measurement import TOTAL
from profiling.records.samples import dispersion, order_statistic
from vlm_roofline.cli.tables import Column, columns, table
from vlm_roofline.cli.units import show_share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from profiling.records.measurement import Measurement


#: Heading -> key of what a profiler pass tells of the host.
_HOST = {"host": "host_share", "kernels": "kernels", "host/kernel": "host_per_kernel"}


def measurement_table(records: Sequence[Measurement]) -> RenderableType:
    """Return a table of medians in milliseconds, three significant figures.

    Where a profiler pass saw the kernels, `host` is the share of the time to the first token in which
    none ran, and `host/kernel` the microseconds that the host needs to issue one.

    Args:
        records: of any number of configurations and rounds.
    """
    groups: dict[str, list[Measurement]] = {}
    for record in records:
        groups.setdefault(record.configuration.key, []).append(record)
    stages = [stage for stage in STAGES if any(stage in record.stages for record in records)]
    models = {record.configuration.model for record in records}
    rows = [_row(members, stages) for members in groups.values()]
    unreduced = {row["alike"]: row["seconds"] for row in rows if row["method"] == "none"}
    for row in rows:
        base = unreduced.get(row["alike"])
        if base is not None and row["seconds"] is not None and row["method"] != "none":
            row["speed_up"] = f"{base / row['seconds']:.2f}x"
    reduced = any(row["method"] != "none" for row in rows)
    wide = any("!" in str(row["spread"]) for row in rows)
    title = f"milliseconds, medians; {', '.join(sorted(models))}"
    return table(
        rows,
        [
            *columns(method="method"),
            *([Column("keep", "keep", "1")] if reduced else []),
            *columns("1", visual="visual", batch="batch"),
            *columns(dtype="dtype", mode="mode"),
            *(Column(stage, stage, "1") for stage in stages),
            Column("first token", TOTAL, "1"),
            *([Column("speed-up", "speed_up", "1")] if reduced else []),
            Column("spread", "spread", "1"),
            Column("bound", "bound", "1", priority=1),
            *(
                Column(heading, name, "1", priority=1)
                for heading, name in _HOST.items()
                if any(row[name] is not None for row in rows)
            ),
            Column("FLOP", "flops", "FLOP", priority=2),
            Column("peak", "peak", "B"),
        ],
        keys=2,
        title=title + ("; ! spread over its aim when the time was up" if wide else ""),
    )


def _row(members: Sequence[Measurement], stages: Sequence[str]) -> dict[str, Any]:
    first = members[0]
    configuration = first.configuration
    visual = first.tokens.visual_llm
    row: dict[str, Any] = {
        "dtype": configuration.dtype,
        "method": configuration.method,
        "keep": configuration.keep,
        # What a method starts from is what the run without one hands to the language model.
        "alike": (
            replace(configuration, method="none", keep=None, visual_tokens=None),
            first.tokens.visual_in if first.tokens.visual_in is not None else visual,
        ),
        "seconds": None,
        "speed_up": None,
        "visual": configuration.visual_tokens if visual is None else visual,
        "batch": configuration.batch_size,
        "mode": configuration.mode,
        **dict.fromkeys((*stages, "spread", "bound", "flops", "peak", *_HOST.values())),
        TOTAL: first.status,
    }
    good = [record for record in members if record.status == "ok" and TOTAL in record.stages]
    if good:
        totals = [value for record in good for value in record.stages[TOTAL].event_s]
        bounds = {record.stages[TOTAL].host_bound for record in good}
        total = good[0].stages[TOTAL]
        row |= {stage: _milliseconds(good, stage) for stage in (*stages, TOTAL)}
        row["seconds"] = order_statistic(totals, 0.5)
        row |= {"spread": _spread(good, dispersion(totals)), "flops": total.flops}
        row |= {"peak": total.peak_allocated_bytes}
        row["bound"] = "host" if bounds == {True} else "device" if bounds == {False} else None
        if total.idle_s is not None and total.median_s:
            row |= {
                "host_share": show_share(total.idle_s / total.median_s),
                "kernels": total.kernels,
            }
        if total.host_s_per_kernel is not None:
            row["host_per_kernel"] = f"{total.host_s_per_kernel * 1e6:.3g} us"
    return row


def _spread(records: Sequence[Measurement], spread: float | None) -> str | None:
    """Write a spread, marked where sampling ended without reaching its aim."""
    late = any(record.sampling.stop_reason == "time-out" for record in records)
    if spread is None:
        return "too few!" if late else None
    aims = [record.sampling.target_dispersion for record in records]
    over = any(aim is not None and spread > aim for aim in aims)
    return show_share(spread) + ("!" if over or late else "")


def _milliseconds(records: Sequence[Measurement], stage: str) -> str:
    samples = [
        value
        for record in records
        if stage in record.stages
        for value in record.stages[stage].event_s
    ]
    if not samples:
        return "-"
    middle = order_statistic(samples, 0.5) * 1e3
    return f"{middle:.3g}" if middle < 1000 else f"{middle:,.0f}"
