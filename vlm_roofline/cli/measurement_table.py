"""Measurements as a table for people: one row per configuration, all its rounds together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.quantities import STAGES
from profiling.records.measurement import TOTAL
from profiling.records.samples import dispersion, order_statistic
from vlm_roofline.cli.options import scale_bytes, scale_flops

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from profiling.records.measurement import Measurement


def measurement_table(records: Sequence[Measurement]) -> Table:
    """Return a table of medians in milliseconds, three significant figures.

    Args:
        records: of any number of configurations and rounds.
    """
    from rich.table import Table

    groups: dict[str, list[Measurement]] = {}
    for record in records:
        groups.setdefault(record.configuration.key, []).append(record)
    stages = [stage for stage in STAGES if any(stage in record.stages for record in records)]
    models = {record.configuration.model for record in records}
    table = Table(title=f"milliseconds, medians; {', '.join(sorted(models))}")
    for name in ("dtype", "method"):
        table.add_column(name)
    for name in ("visual", "batch"):
        table.add_column(name, justify="right")
    table.add_column("mode")
    for name in (*stages, "first token", "spread", "bound", "FLOP", "peak"):
        table.add_column(name, justify="right")
    for members in groups.values():
        table.add_row(*_cells(members, stages))
    return table


def _cells(members: Sequence[Measurement], stages: Sequence[str]) -> list[str]:
    first = members[0]
    configuration = first.configuration
    visual = first.tokens.visual_llm
    asked = configuration.visual_tokens if visual is None else visual
    cells = [
        configuration.dtype,
        configuration.method,
        "-" if asked is None else str(asked),
        str(configuration.batch_size),
        configuration.mode,
    ]
    good = [record for record in members if record.status == "ok"]
    if not good:
        return [*cells, *("-" for _ in stages), first.status, "-", "-", "-", "-"]
    totals = [value for record in good for value in record.stages[TOTAL].event_s]
    spread = dispersion(totals)
    bounds = {record.stages[TOTAL].host_bound for record in good}
    bound = "host" if bounds == {True} else "device" if bounds == {False} else "-"
    total = good[0].stages[TOTAL]
    return [
        *cells,
        *(_milliseconds(good, stage) for stage in stages),
        _milliseconds(good, TOTAL),
        "-" if spread is None else f"{100 * spread:.1f} %",
        bound,
        scale_flops(total.flops),
        scale_bytes(total.peak_allocated_bytes),
    ]


def _milliseconds(records: Sequence[Measurement], stage: str) -> str:
    samples = [
        value
        for record in records
        if stage in record.stages
        for value in record.stages[stage].event_s
    ]
    return f"{order_statistic(samples, 0.5) * 1e3:.3g}" if samples else "-"
