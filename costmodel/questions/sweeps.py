"""`sweep`: every combination of its arguments, one row each, through the same path as `estimate`.

`sweep_chunks` yields bounded pieces, and `sweep(reduce=...)` keeps of them what is asked for, so that 10^9
scenarios need no more memory than thousands.

>>> from costmodel import sweep
>>> table = sweep("llava-1.5-7b", "nvidia-a100-sxm4-80gb", visual_tokens=[576, 64])
>>> list(table["flops"].astype("int64"))
[8583722926080, 1759019892736]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costmodel.questions.chunks import Chunk, join_chunks
from costmodel.questions.sweep_engines import Job, reduced
from costmodel.questions.sweep_plan import CHUNK_ROWS, SweepPlan
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd

    from costmodel.questions.reducers import Reducer


def sweep_chunks(
    model: Any,
    hardware: Any,
    *,
    chunk_rows: int = CHUNK_ROWS,
    stage_columns: bool = False,
    errors: str = "raise",
    **arguments: Any,
) -> Iterator[Chunk]:
    """Yield a sweep in bounded pieces; arguments as `sweep`."""
    plan = SweepPlan(model, hardware, **arguments)
    return plan.chunks(chunk_rows=chunk_rows, stage_columns=stage_columns, errors=errors)


def sweep(
    model: Any,
    hardware: Any,
    *,
    stage_columns: bool = False,
    errors: str = "raise",
    reduce: Reducer[Any] | None = None,
    engine: str = "local",
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    **arguments: Any,
) -> pd.DataFrame:
    """Price every combination of the arguments, one row each.

    A sweep larger than memory is reduced while it runs: `top_k`, `pareto`, `histogram` or `parquet_parts`
    of `costmodel`. Its parts are shared out among processes, which are spawned: a script keeps such a call
    behind `if __name__ == "__main__"`, and they know no method, family or plan that the script registers
    elsewhere; `workers=1` prices them here.

    Args:
        model: a model in any form that `estimate` takes, or a list of them.
        hardware: a device in any form that `estimate` takes, or a list of them.
        stage_columns: whether to add `<stage>_<cost>` columns.
        errors: `raise`, or `keep` to yield combinations that cannot be priced as empty rows with
            their reason in the column `error`.
        reduce: what to make of the rows; None for all of them.
        engine: of a sweep that is reduced: `local`, or `ray` for the cluster that RAY_ADDRESS names or
            that runs here.
        workers: of a sweep that is reduced: processes, or parts on the cluster at a time; None for as
            many as there are processors.
        on_progress: of a sweep that is reduced: is told how many parts are done and how many there are.
        arguments: any other argument of `estimate` (but `convention`), a value or a list each.
            Among several methods, `keep` and `layer` do not apply to "none": it is priced once.

    Returns:
        Names as categories, token counts and batch as integers, everything else as float64 (exact
        below 2^53; `estimate` counts exactly beyond). With `errors="keep"` there is a column `error`.
        `attrs["warnings"]` has what the checkpoints' precision has to say on the devices. A sweep that
        is reduced gives what its reducer says, with `attrs["rows"]` and `attrs["unpriced"]`: how many
        rows there were, and how many of them could not be priced.

    Raises:
        VlmRooflineError: a bad argument.
        UnsupportedError: the workers died one after the other.

    >>> table = sweep("llava-1.5-7b", ["nvidia-t4", "nvidia-l4"], batch_size=[1, 8])
    >>> len(table), list(table.columns[:4])
    (4, ['model', 'hardware', 'precision', 'method'])
    """
    plan = SweepPlan(model, hardware, **arguments)
    if reduce is not None:
        job = Job(plan, reduce, errors, stage_columns)
        return reduced(job, engine=engine, workers=workers, on_progress=on_progress)
    if engine != "local" or workers is not None or on_progress is not None:
        raise InvalidInputError(
            "engine, workers and on_progress are for a sweep that is reduced; give reduce as well"
        )
    return join_chunks(list(plan.chunks(stage_columns=stage_columns, errors=errors)))
