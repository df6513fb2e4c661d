"""Measurements as a table for people: one row per configuration, all its rounds together."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.text import Text

from costmodel.models.model import write_size
from costmodel.quantities import STAGES
from profiling.records.measurement import COMMUNICATION, DECODE_COMMUNICATION, GENERATION, TOTAL
from profiling.records.samples import dispersion, order_statistic
from vlm_roofline.cli.tables import WAYS, Column, columns, shared, table
from vlm_roofline.cli.units import show_share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from profiling.records.measurement import Measurement


#: Heading -> key of what a profiler pass tells of the host.
_HOST = {"host": "host_share", "kernels": "kernels", "host/kernel": "host_per_kernel"}
#: What may differ between rows of one method; `decode` spans all its steps.
_TOLD = [
    *columns(model="model", dtype="dtype"), *WAYS, *columns(image="image"),
    *columns("1", batch="batch", text_tokens="text", decode_steps="steps", images="images",
             frames="frames", tp="tp"),
]  # fmt: skip
_UNSAID = ("attention sdpa", "cache warm", "-", "decode steps 0", "images -", "frames -", "tp 1")

#: Stage -> heading, where they differ.
_HEADINGS = {COMMUNICATION: "in collectives", DECODE_COMMUNICATION: "in decode's"}


def measurement_table(records: Sequence[Measurement]) -> RenderableType:
    """Return a table of medians in milliseconds, three significant figures.

    Where a profiler pass saw the kernels, `host` is the share of the time to the first token in which
    none ran, and `host/kernel` the microseconds that the host needs to issue one.
    """
    groups: dict[str, list[Measurement]] = {}
    for record in records:
        groups.setdefault(record.configuration.key, []).append(record)
    known = (*STAGES, GENERATION, COMMUNICATION, DECODE_COMMUNICATION)
    stages = [stage for stage in known if any(stage in record.stages for record in records)]
    rows = [_row(members, stages) for members in groups.values()]
    for row in rows:
        row["speed_up"] = _speed_up(row, rows)
    reduced = any(row["method"] != "none" for row in rows)
    said, differing = shared(rows, _TOLD, _UNSAID)
    view = table(
        rows,
        [
            *columns(method="method"),
            *([Column("keep", "keep", "1")] if reduced else []),
            *differing,
            *columns("1", visual="visual"),
            *(Column(_HEADINGS.get(stage, stage), stage, "1") for stage in stages),
            Column("first token", TOTAL, "1"),
            *([Column("speed-up", "speed_up", "1")] if reduced else []),
            Column("spread", "spread", "1"),
            *(
                Column(heading, name, "1", priority=1)
                for heading, name in ({"bound": "bound"} | _HOST).items()
                if any(row[name] is not None for row in rows)
            ),
            Column("FLOP", "flops", "FLOP", priority=2),
            Column("peak", "peak", "B", priority=1),
        ],
        title=f"{said}: medians in milliseconds",
    )
    notes = [
        f"the clock of {timer} ran {boundary}"
        for timer, boundary in sorted(
            {(item.sampling.timer, item.boundary) for item in records if item.boundary is not None}
        )
    ]
    if any(row["speed_up"] is not None for row in rows):
        notes.append(
            "speed-up: first token, against the run without a method on as many visual tokens"
        )
    backends = sorted({each.ranks.backend for each in records if each.ranks is not None})
    if backends:
        notes.append(
            f"several processes ({', '.join(backends)}): of each repetition the time of the slowest, and the "
            "largest peak; in collectives: waiting for the others included, and part of the stages beside it"
        )
    if any("!" in str(row["spread"]) for row in rows):
        notes.append(
            "!: when the time was up (--max-time) the spread was over its aim (--noise), or there were "
            "too few samples to know it"
        )
    return Group(view, *(Text(line, style="dim") for line in notes))


def _speed_up(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str | None:
    """Return how many times faster a method is than the run without one nearest in time."""
    bases = [each for each in rows if each["method"] == "none" and each["alike"] == row["alike"]]
    bases = [each for each in bases if each["seconds"] is not None]
    if row["method"] == "none" or row["seconds"] is None or not bases:
        return None
    nearest = min(bases, key=lambda each: abs(each["started"] - row["started"]))
    return f"{nearest['seconds'] / row['seconds']:.2f}x"


def _row(members: Sequence[Measurement], stages: Sequence[str]) -> dict[str, Any]:
    first = members[0]
    configuration = first.configuration
    visual = first.tokens.visual_llm
    unreduced = configuration.method == "none"
    row: dict[str, Any] = {
        "model": configuration.model,
        "dtype": configuration.dtype,
        "method": configuration.method,
        "keep": configuration.keep
        if configuration.keep is not None or unreduced
        # Without a keep a method is asked for the visual tokens, and without these for its default.
        else configuration.visual_tokens or "default",
        # What a method starts from is what the run without one hands to the language model.
        "alike": (
            replace(configuration, method="none", keep=None, visual_tokens=None),
            visual if unreduced or first.tokens.visual_in is None else first.tokens.visual_in,
        ),
        "seconds": None,
        "started": datetime.fromisoformat(first.started_at).timestamp()
        if first.started_at
        else 0.0,
        "visual": configuration.visual_tokens if visual is None else visual,
        "batch": configuration.batch_size,
        "tp": configuration.tp,
        "mode": configuration.mode,
        "attention": configuration.attention,
        "cache": configuration.cache,
        "image": write_size(configuration.image_sizes) if configuration.image_sizes else None,
        "text": configuration.text_tokens,
        "steps": configuration.output_tokens,
        "images": configuration.images,
        "frames": configuration.frames,
        **dict.fromkeys((*stages, "spread", "bound", "flops", "peak", *_HOST.values())),
        TOTAL: None if first.status == "ok" else first.status,
    }
    fine = [record for record in members if record.status == "ok"]
    row |= {stage: _milliseconds(fine, stage) for stage in stages if fine}
    good = [record for record in fine if TOTAL in record.stages]
    if good:
        totals = [value for record in good for value in record.stages[TOTAL].event_s]
        bounds = {record.stages[TOTAL].host_bound for record in good}
        total = good[0].stages[TOTAL]
        row[TOTAL] = _milliseconds(good, TOTAL)
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
    return f"{middle:#.3g}".rstrip(".") if middle < 999.5 else f"{middle:,.0f}"
