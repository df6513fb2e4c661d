"""The columns of a sweep's rows: what of an evaluation they hold, all of it or the few that are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.quantities import COST_KEYS, MEMORY_KEYS, REQUEST, STAGES
from costmodel.questions.chunks import COUNTS, Chunk
from costmodel.roofline import StageCost, added
from costmodel.uncertainty import BRACKET

if TYPE_CHECKING:
    from collections.abc import Collection

    from costmodel.evaluate import Context, Evaluation
    from costmodel.scenario import Scenario

#: Quantities of a stage that a row has, and of each stage where that is asked for.
COSTS = tuple(name for name in COST_KEYS if name != "bound")
_MEMORY = tuple(name for name in MEMORY_KEYS if name not in ("weight_bytes", "capacity_bytes"))
SHARES = ("measured_share", "transferred_share", "assumed_share")
#: Columns every row has; `stage_columns=True` adds `<stage>_<cost>` for each stage.
COLUMNS = (*COSTS, "ttft_s", "tpot_s", "bound", *SHARES, "model_weight_bytes", *_MEMORY)
#: What needs no more than times and memory, which are quicker to work out.
_QUICK = {
    "time_s", "ttft_s", "tpot_s", "model_weight_bytes", *_MEMORY, *COUNTS,
} - {"activation_bytes_written"}  # fmt: skip


def price(
    context: Context,
    fixed: dict[str, Any],
    scenario: Scenario,
    *,
    first: int,
    repeat: int = 1,
    stage_columns: bool = False,
    columns: Collection[str] | None = None,
) -> Chunk:
    """Price rows of one combination.

    Args:
        context: what stays fixed.
        fixed: the values that hold for all rows.
        scenario: their numbers, arrays of one length.
        first: the number of the first row in the sweep.
        repeat: length of the blocks that differ in their decode steps alone.
        stage_columns: whether to add the costs of each stage.
        columns: the columns to return; None for all.
    """
    quick = columns is not None and _QUICK.issuperset(columns)
    rows = len(scenario.batch_size)  # type: ignore[arg-type]  # an array
    evaluation = context.evaluate(scenario, vector=True, repeat=repeat, times_only=quick)
    found = _quick_columns(evaluation, scenario) if quick else _total_columns(evaluation, scenario)
    if stage_columns:
        for stage in STAGES:
            for name in COSTS:
                found[f"{stage}_{name}"] = getattr(evaluation.stages[stage], name)
            found[f"{stage}_bound"] = evaluation.stages[stage].bound_code
    counts = [name for name in COUNTS if columns is None or name in columns]
    held = {name: getattr(scenario, name).astype(np.int64) for name in counts}
    for name, column in found.items():
        if columns is not None and name not in columns:
            continue
        if column is not None and name != "fits" and not name.endswith("bound"):
            column = np.asarray(column, dtype=np.float64)
        held[name] = None if column is None else np.broadcast_to(column, (rows,))
    # How many images there are, a column says row by row.
    fixed = {name: value for name, value in fixed.items() if name != "images"}
    return Chunk(fixed, held, rows, context.warnings, first)


def _memory_columns(evaluation: Evaluation) -> dict[str, Any]:
    memory = evaluation.memory
    return {
        "model_weight_bytes": memory.weight_bytes,
        **{name: getattr(memory, name) for name in _MEMORY},
    }


def _token_times(evaluation: Evaluation, scenario: Scenario) -> dict[str, Any]:
    stages, steps = evaluation.stages, scenario.output_tokens
    decode = stages["decode"].time_s
    return {
        "ttft_s": sum(cost.time_s for name, cost in stages.items() if name != "decode"),
        "tpot_s": np.where(steps > 0, decode / np.maximum(steps, 1), np.nan),
    }


def _quick_columns(evaluation: Evaluation, scenario: Scenario) -> dict[str, Any]:
    """Return the columns of `_QUICK` but for the counts."""
    return {
        "time_s": sum(cost.time_s for cost in evaluation.stages.values()),
        **_token_times(evaluation, scenario),
        **_memory_columns(evaluation),
    }


def _total_columns(evaluation: Evaluation, scenario: Scenario) -> dict[str, Any]:
    """Return the columns of `COLUMNS`."""
    running = [
        cost
        for name, cost in evaluation.stages.items()
        if name in (REQUEST, "prefill") or np.any(cost.kernels)
    ]
    total = StageCost(*added(running))
    return {
        **{name: getattr(total, name) for name in COSTS},
        **_token_times(evaluation, scenario),
        "bound": total.bound_code,
        **_share_columns(total),
        **_memory_columns(evaluation),
    }


def _share_columns(total: StageCost) -> dict[str, Any]:
    """Return the shares of the time that rest on measured, transferred and assumed parameters."""
    assert total.errors is not None  # noqa: S101 - only conventions have none
    if BRACKET in total.errors.parts:
        return dict.fromkeys(SHARES)
    return {f"{name}_share": share for name, share in total.errors.shares().items()}
