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
    found = _columns(evaluation, scenario, quick=quick)
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


def _columns(evaluation: Evaluation, scenario: Scenario, *, quick: bool) -> dict[str, Any]:
    """Return the columns of `COLUMNS`, or those of `_QUICK` but for the counts."""
    stages, memory, steps = evaluation.stages, evaluation.memory, scenario.output_tokens
    found = {
        "ttft_s": sum(cost.time_s for name, cost in stages.items() if name != "decode"),
        "tpot_s": np.where(steps > 0, stages["decode"].time_s / np.maximum(steps, 1), np.nan),
        "model_weight_bytes": memory.weight_bytes,
        **{name: getattr(memory, name) for name in _MEMORY},
    }
    if quick:
        return found | {"time_s": sum(cost.time_s for cost in stages.values())}
    running = [
        cost
        for name, cost in stages.items()
        if name in (REQUEST, "prefill") or np.any(cost.kernels)
    ]
    total = StageCost(*added(running))
    assert total.errors is not None  # noqa: S101 - only conventions have none
    shares = {} if BRACKET in total.errors.parts else total.errors.shares()
    found |= {f"{name}_share": share for name, share in shares.items()}
    found |= {name: getattr(total, name) for name in COSTS} | {"bound": total.bound_code}
    return {name: found.get(name) for name in COLUMNS}
