"""Measured times beside the points of a frontier."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from hardware_specs import could_be, get_hardware
from profiling.records.measurement import GENERATION, TOTAL
from profiling.records.storage import iterate_measurements

if TYPE_CHECKING:
    from pathlib import Path

    from costmodel.questions.frontiers import Frontier


def frontier_times(result: Frontier, hardware: Any, runs: Path) -> list[float | None]:
    """Return of each point the time measured of its method at its tokens, s; None where nothing was.

    A record counts if it is of the model, the batch and the device: its time to the first token, or with
    `output_tokens` its generation, of whichever text. Of several the median counts.

    Args:
        result: the frontier.
        hardware: its device, as `costmodel.estimate` takes it.
        runs: records, a file or a folder.

    Raises:
        InvalidFileError: `runs` is no file or folder of records.
    """
    stage = GENERATION if result.fixed["output_tokens"] else TOTAL
    spec = get_hardware(hardware)
    found: dict[tuple[str, int | None], list[float]] = {}
    for _, record in iterate_measurements(runs):
        asked, samples = record.configuration, record.stages.get(stage)
        time = None if samples is None else samples.median_s
        subject = (asked.model, asked.batch_size)
        if time is None or subject != (result.model, result.fixed["batch_size"]):
            continue
        device = record.environment.get("device_name")
        memory = record.environment.get("device_memory_bytes")
        if device is not None and not could_be(spec, device, memory):
            continue
        tokens = record.tokens.visual_llm
        tokens = asked.visual_tokens if tokens is None else tokens
        found.setdefault((asked.method.partition("(")[0], tokens), []).append(time)
    times = (found.get((point.method, point.visual_tokens)) for point in result.points)
    return [None if time is None else median(time) for time in times]
