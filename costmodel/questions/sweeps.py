"""`sweep`: every combination of its arguments, one row each, through the same path as `estimate`.

`sweep_chunks` yields bounded pieces, so that 10^8 scenarios stream to a file in constant memory.

>>> from costmodel import sweep
>>> table = sweep("llava-1.5-7b", "nvidia-a100-sxm4-80gb", visual_tokens=[576, 64])
>>> list(table["flops"].astype("int64"))
[8583722926080, 1759019892736]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costmodel.questions.chunks import Chunk, join_chunks
from costmodel.questions.sweep_plan import CHUNK_ROWS, SweepPlan

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd


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
    **arguments: Any,
) -> pd.DataFrame:
    """Price every combination of the arguments, one row each.

    Args:
        model: a model in any form that `estimate` takes, or a list of them.
        hardware: a device in any form that `estimate` takes, or a list of them.
        stage_columns: whether to add `<stage>_<cost>` columns.
        errors: `raise`, or `keep` to yield combinations that cannot be priced as empty rows with
            their reason in the column `error`.
        arguments: any other argument of `estimate` (but `convention`), a value or a list each.
            Among several methods, `keep` and `layer` do not apply to "none": it is priced once.

    Returns:
        Names as categories, token counts and batch as integers, everything else as float64 (exact
        below 2^53; `estimate` counts exactly beyond). With `errors="keep"` there is a column `error`.
        `attrs["warnings"]` has what the checkpoints' precision has to say on the devices.

    Raises:
        VlmRooflineError: a bad argument.

    >>> table = sweep("llava-1.5-7b", ["nvidia-t4", "nvidia-l4"], batch_size=[1, 8])
    >>> len(table), list(table.columns[:4])
    (4, ['model', 'hardware', 'precision', 'method'])
    """
    return join_chunks(
        list(sweep_chunks(model, hardware, stage_columns=stage_columns, errors=errors, **arguments))
    )
