"""A trace as a table of measured ops that `calibrate` reads.

One row per product, convolution of patches and fused attention with its sizes, the median of its calls:
they are timed inside a model, so their weights are cold. Kernels that only stream bytes are left out: a
trace does not say which of their bytes came from a cache.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import InvalidInputError
from profiling.explaining.roofs import cost_of

if TYPE_CHECKING:
    import pandas as pd

    from profiling.explaining.explanation import Explanation


def op_frame(found: Explanation) -> pd.DataFrame:
    """Return the measured ops of a trace in the columns that a fit reads.

    Args:
        found: from `profiling.explain`.

    Raises:
        InvalidInputError: no op of the trace has its sizes and its type.
    """
    import pandas as pd

    groups: dict[tuple[Any, ...], list[float]] = {}
    for call in found._calls:
        cost = cost_of(call) if call.product or call.attention or call.op_class == "conv" else None
        if cost is None or cost.shape is None or call.time_us <= 0:
            continue
        groups.setdefault((cost.op_class, cost.dtype, cost.shape), []).append(call.time_us * 1e-6)
    device = found.device_names[0] if found.device_names else ("cpu" if found.on_cpu else "")
    rows = []
    for (op_class, dtype, shape), times in groups.items():
        row: dict[str, Any] = {
            "op_class": op_class, "device": device, "dtype": dtype, "cache": "weights-cold",
            "time_s": statistics.median(times), "samples": len(times),
        }  # fmt: skip
        if op_class in ("gemm", "conv"):
            row |= dict(zip(("m", "n", "k", "batch"), shape, strict=True))
        else:
            names = ("batch_size", "seq_len", "kv_len", "heads", "kv_heads", "head_dim", "causal")
            row |= dict(zip(names, shape, strict=True))
        rows.append(row)
    if not rows:
        raise InvalidInputError(
            f"no op of {found.source} has its sizes and its type: record the trace with record_shapes=True"
        )
    return pd.DataFrame(rows).sort_values(["op_class", "dtype", "time_s"], ignore_index=True)


def write_op_frame(found: Explanation, path: Any) -> int:
    """Write the measured ops of a trace as Parquet or CSV, by the file's ending; return the rows.

    Raises:
        InvalidInputError: another ending, or no op that can be used.
        OutputError: the file cannot be written.
    """
    import io

    from hardware_specs.files.writing import check_ending, write_file

    ending = check_ending(path, ".parquet", ".csv")
    frame = op_frame(found)
    if ending == ".csv":
        write_file(path, frame.to_csv(index=False))
    else:
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        write_file(path, buffer.getvalue())
    return len(frame)
