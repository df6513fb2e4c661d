"""Tables of measured ops: the records of micro-benchmarks, in the columns a calibration is fitted on.

One JSON document with `kind` "ops", the environment, and one row per op with every raw sample.
Columns by op class:

    gemm, conv                      m, n, k, flops, bytes
    attention_prefill, _encoder,    batch_size, seq_len (queries), kv_len, heads, kv_heads, head_dim,
    _decode                         causal, flops, bytes
    norm, pointwise, copy,          bytes, flops
    embedding
    host                            name (launch, module_kernel, synchronise); no size

and for all: device, dtype, time_s (median), min_s, dispersion, samples, samples_s; for all but host:
cache (`weights-cold`, `weights-in-cache` or `no-weights`), weight_copies (sets of weights that a chain
of calls goes through), load (`burst`, or `sustained`: after a second without a pause), calls, graph
(whether the chain ran as a CUDA graph), and where a case differs from a model's own op of its class,
variant: an attention implementation by name, `batched` products, `strided` copies, `rms_norm`,
`softmax`. Tables of older releases lack the columns from weight_copies on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import InvalidFileError
from hardware_specs.files.reading import read_json, read_lines, warn_damaged
from hardware_specs.files.strict_json import parse_json
from hardware_specs.files.writing import write_file
from profiling.records.measurement import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

SCHEMA_VERSION = 1
KIND = "ops"


@dataclass(frozen=True, slots=True)
class OpTable:
    """Measured ops of one device.

    Args:
        rows: one mapping per op.
        environment: as `profiling.instruments.environment.describe_environment` gives it.
        ceilings: best rate seen, `copy_bytes_per_s`, `pointwise_bytes_per_s`, `peak_flop_per_s.<dtype>`.
        skipped: what could not be run, with its reason.
        started_at: ISO 8601.
    """

    rows: tuple[Mapping[str, Any], ...]
    environment: Mapping[str, Any] = field(default_factory=dict)
    ceilings: Mapping[str, float] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    started_at: str = ""

    def frame(self) -> pd.DataFrame:
        """Return the rows as a DataFrame, without the raw samples."""
        import pandas as pd

        return pd.DataFrame(
            [{name: row[name] for name in row if name != "samples_s"} for row in self.rows]
        )

    def write(self, path: str | Path) -> Path:
        """Write the table atomically and return its path.

        Raises:
            OutputError: it cannot be written.
        """
        document = {"kind": KIND, "schema_version": SCHEMA_VERSION, **plain(self)}
        rows = document.pop("rows")
        # One row per line: a table is read by people too, and diffs stay small.
        head = json.dumps(document, allow_nan=False, indent=1)[:-2]
        body = ",\n  ".join(json.dumps(row, allow_nan=False) for row in rows)
        return write_file(path, f'{head},\n "rows": [\n  {body}\n ]\n}}\n')


def read_op_table(path: str | Path) -> OpTable:
    """Read a table of measured ops.

    Raises:
        InvalidFileError: unreadable, or not such a table.
    """
    source = Path(path)
    document = read_json(source, "table")
    if not isinstance(document, dict) or document.get("kind") != KIND:
        raise InvalidFileError(f"{source} is no table of measured ops: its kind is not {KIND!r}")
    if document.get("schema_version") != SCHEMA_VERSION:
        raise InvalidFileError(
            f"{source} has schema_version {document.get('schema_version')!r}, "
            f"known is {SCHEMA_VERSION}"
        )
    rows = document.get("rows")
    if not isinstance(rows, list) or not all(_is_row(row) for row in rows):
        raise InvalidFileError(f"{source}: a row has no op_class or no positive time_s")
    return OpTable(
        rows=tuple(rows),
        environment=document.get("environment", {}),
        ceilings=document.get("ceilings", {}),
        skipped=document.get("skipped", {}),
        started_at=document.get("started_at", ""),
    )


def read_op_rows(path: str | Path) -> list[dict[str, Any]]:
    """Return the rows that were appended to a file, one a line; an absent file has none.

    A damaged line, such as the last one before a kill, is named in a `DamagedFileWarning` and passed
    over.

    Raises:
        InvalidFileError: the file cannot be read.
    """
    rows = []
    for place, text in read_lines(path) if Path(path).exists() else ():
        try:
            row = parse_json(text)
            if not _is_row(row) or not isinstance(row.get("dtype"), str):
                raise InvalidFileError(
                    "no op_class, no dtype, or no positive time_s, flops or bytes"
                )
            rows.append(row)
        except InvalidFileError as error:
            warn_damaged(InvalidFileError(f"{place}: {error}"))
    return rows


def _is_row(row: Any) -> bool:
    return (
        isinstance(row, dict)
        and isinstance(row.get("op_class"), str)
        and all(
            isinstance(row.get(name), int | float) and row[name] >= 0
            for name in ("time_s", "flops", "bytes")
            if name == "time_s" or row["op_class"] in ("gemm", "copy", "pointwise")
        )
        and row["time_s"] > 0
    )
