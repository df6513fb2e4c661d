"""Measurements as a tidy table: one row per measurement and stage, or per raw sample."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from profiling.records.measurement import TOTAL, Measurement
from profiling.records.samples import summarise
from profiling.records.storage import iterate_measurements

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pandas as pd

_STAGE = (
    "resident_bytes", "peak_allocated_bytes", "peak_reserved_bytes", "kernels", "flops",
    "busy_s", "host_s_per_kernel",
)  # fmt: skip


def load_measurements(folder: str | Path, *, samples: bool = False) -> pd.DataFrame:
    """Return every record under a folder of `.json` and `.jsonl` files (or in one) as a tidy DataFrame.

    One row per measurement and stage (`stage` is vision, projector, reduction, prefill, decode or
    total), or with `samples=True` one row per measurement, stage and repetition. A point that ran
    out of memory keeps one row with `status` and an empty `stage`, so that it is never mistaken
    for one that was not tried. Times are seconds, sizes bytes; a missing quantity is missing.

    Raises:
        InvalidInputError: there is no such folder or file.
    """
    return measurements_frame(
        ((str(path), record) for path, record in iterate_measurements(folder)), samples=samples
    )


def measurements_frame(
    records: Iterable[tuple[str, Measurement]], *, samples: bool = False
) -> pd.DataFrame:
    """Return records with the names of their files as a tidy DataFrame; see `load_measurements`."""
    import pandas as pd

    make = _sample_rows if samples else _stage_rows
    rows = [row for source, record in records for row in make(record, source)]
    return pd.DataFrame(rows)


def _identity(record: Measurement, source: str) -> dict[str, Any]:
    environment = record.environment
    return {
        **asdict(record.configuration),
        "visual_tokens_llm": record.tokens.visual_llm,
        "visual_tokens_in": record.tokens.visual_in,
        "crops": record.tokens.crops,
        "device_name": environment.get("device_name"),
        "torch": environment.get("torch"),
        "transformers": environment.get("transformers"),
        "status": record.status,
        "round": record.round,
        "position": record.position,
        "timer": record.sampling.timer,
        "stop_reason": record.sampling.stop_reason,
        "started_at": record.started_at,
        "file": source,
    }


def _stage_rows(record: Measurement, source: str) -> list[dict[str, Any]]:
    identity = _identity(record, source)
    windows = {window.stage: window for window in record.energy}
    rows = []
    for stage, data in record.stages.items():
        summary = asdict(data.summary)
        window = windows.get(stage)
        rows.append(
            {
                **identity,
                "stage": stage,
                "samples": summary.pop("count"),
                **summary,
                "enqueue_s": summarise(data.enqueue_s).median_s,
                "wall_s": summarise(data.wall_s).median_s,
                "idle_event_s": summarise(data.idle_event_s).median_s,
                "idle_s": data.idle_s,
                "host_bound": data.host_bound,
                "step_s": record.tpot_s if stage == "decode" else None,
                **{name: getattr(data, name) for name in _STAGE},
                "energy_j": window.energy_j if window else None,
                "energy_method": window.method if window else None,
                "power_w": window.power_w if window else None,
            }
        )
    return rows or [{**identity, "stage": None, "samples": 0}]


def _sample_rows(record: Measurement, source: str) -> list[dict[str, Any]]:
    identity = _identity(record, source)
    return [
        {**identity, "stage": stage, "repetition": index, "event_s": value}
        for stage, data in sorted(record.stages.items(), key=lambda item: item[0] != TOTAL)
        for index, value in enumerate(data.event_s)
    ]
