"""Reading tables of measured ops: the class or the columns of a row decide its kind."""

from __future__ import annotations

import io
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.calibration.classes import kind_of_class
from costmodel.calibration.columns import (
    NEEDED,
    OPTIONAL,
    as_in_models,
    checked,
    host_times,
    labels,
    need,
)
from costmodel.calibration.dtypes import canonical
from hardware_specs.errors import CalibrationError, InvalidFileError, MissingDependencyError
from hardware_specs.files.reading import (
    files_under,
    look,
    read_bytes,
    read_json,
    show_path,
    user_path,
    warn_damaged,
)
from hardware_specs.names import is_generic, may_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

#: The class of rows that time the host: named `module_kernel`, `launch` or `synchronise`.
HOST = "host"
_SUFFIXES = (".parquet", ".csv", ".json")
#: No table of measured ops is larger.
MOST_CELLS = 100_000_000


@dataclass(frozen=True)
class Group:
    """The measured points of one op class in one dtype.

    Attributes:
        op_class: the class.
        dtype: a canonical label.
        sizes: arguments of `Calibration.op_time_s`, arrays of shape (points,).
        time_s: measured seconds, shape (points,).
        origin: the tables they come from.
    """

    op_class: str
    dtype: str
    sizes: dict[str, np.ndarray]
    time_s: np.ndarray
    origin: str

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.time_s)

    def take(self, index: Any) -> Group:
        """Return the points at an index array or mask."""
        sizes = {name: values[index] for name, values in self.sizes.items()}
        return Group(self.op_class, self.dtype, sizes, self.time_s[index], self.origin)


def read_tables(table: Any) -> list[tuple[str, pd.DataFrame]]:
    """Return (name, frame) for every table that the argument names.

    Args:
        table: a DataFrame; the path of a CSV or Parquet file, or of a JSON document of measured ops
            (`kind` "ops" with `rows`); a folder of them; or a list of these.

    Raises:
        CalibrationError: a path leads nowhere, a folder holds no table, a file holds none.
        InvalidFileError: a file cannot be read, or is larger than any table.
        MissingDependencyError: a Parquet file without pyarrow.
    """
    import pandas as pd

    if isinstance(table, pd.DataFrame):
        return [(str(table.attrs.get("name", "a table")), table)]
    if isinstance(table, (str, Path)):
        return _from_path(user_path(table))
    if isinstance(table, (list, tuple)):
        if not table:
            raise CalibrationError("no table was given; name CSV or Parquet files, or a folder")
        return [pair for each in table for pair in read_tables(each)]
    raise CalibrationError(
        f"a table is a DataFrame, a CSV or Parquet path, a folder or a list of these, "
        f"not {type(table).__name__}"
    )


def _from_path(path: Path) -> list[tuple[str, pd.DataFrame]]:
    found = look(path)
    if found is None:
        raise CalibrationError(f"no table at {show_path(path)!r}")
    if stat.S_ISDIR(found.st_mode):
        # A measurement folder holds other documents too; only tables of ops are asked for.
        tables = []
        for each in files_under(path, _SUFFIXES):
            try:
                frame = _frame(each)
            except InvalidFileError as error:
                if each.suffix != ".json":
                    raise
                warn_damaged(error)
                continue
            if frame is not None:
                tables.append((each.name, frame))
        if not tables:
            raise CalibrationError(
                f"the folder {show_path(path)!r} holds no .csv, .parquet or .json table of "
                "measured ops"
            )
        return tables
    if path.suffix not in _SUFFIXES:
        raise CalibrationError(f"{show_path(path)!r} is none of {', '.join(_SUFFIXES)}")
    frame = _frame(path)
    if frame is None:
        raise CalibrationError(
            f"{show_path(path)!r} is no table of measured ops: its kind is not 'ops'"
        )
    return [(path.name, frame)]


def _frame(path: Path) -> pd.DataFrame | None:
    """Read one table; None for a JSON document of another kind."""
    import pandas as pd

    if path.suffix == ".json":
        document = read_json(path, "table")
        if not isinstance(document, dict) or document.get("kind") != "ops":
            return None
        rows = document.get("rows")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise InvalidFileError(f"{show_path(path)}: its rows are no list of objects")
        return pd.DataFrame([{k: v for k, v in row.items() if k != "samples_s"} for row in rows])
    content = io.BytesIO(read_bytes(path, "table"))
    try:
        if path.suffix == ".csv":
            # Bytes that are no text stay visible in their cell, where its column's check names it.
            return pd.read_csv(content, encoding_errors="replace", low_memory=False)
        return _parquet(content)
    except (ValueError, OSError, OverflowError, RecursionError) as error:
        # pandas' and Arrow's own errors for damaged tables derive from these.
        raise CalibrationError(
            f"{show_path(path)!r} cannot be read: {' '.join(str(error).split())[:200]}"
        ) from None


def _parquet(content: io.BytesIO) -> pd.DataFrame:
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingDependencyError("pyarrow", "analysis") from None
    from pyarrow import ArrowException

    try:
        file = pq.ParquetFile(content)
        # A few bytes can stand for any number of equal rows.
        if file.metadata.num_rows * max(1, file.metadata.num_columns) > MOST_CELLS:
            raise ValueError(f"it has more than {MOST_CELLS} cells")
        table = file.read()
        table.validate(full=True)
        # What pandas noted of its index may be damaged, and nothing here reads an index.
        frame: pd.DataFrame = table.to_pandas(ignore_metadata=True)
    except ArrowException as error:
        raise ValueError(str(error)) from None
    return frame


def kind_of(name: str, frame: pd.DataFrame) -> str:
    """Return `gemm`, `attention` or `stream`.

    Raises:
        CalibrationError: the columns fit none, or `time_s` is missing; says what would fit.
    """
    columns = set(frame.columns)
    if "time_s" in columns:
        for kind, needed in NEEDED.items():
            if columns.issuperset(needed):
                return kind
    kinds = "; ".join(f"{kind}: {', '.join(needed)}" for kind, needed in NEEDED.items())
    raise CalibrationError(
        f"{name} has the columns {_shortened(frame.columns)}; a table of measured ops "
        f"needs time_s (or time_ms, time_us, time_ns, or time with its unit) and one of these "
        f"sets: {kinds}"
    )


def _shortened(names: Iterable[Any]) -> str:
    """Return names shortened for a message: a file's first line may hold anything."""
    text = ", ".join(show_path(str(name)) for name in names)
    return text if len(text) <= 300 else text[:297] + "..."


def group_points(
    tables: Iterable[tuple[str, pd.DataFrame]], device_names: Iterable[str]
) -> tuple[list[Group], list[str]]:
    """Return the points by op class and dtype, and remarks on what was left out.

    Args:
        tables: (name, frame) pairs.
        device_names: names under which the device may appear in a `device` column.

    Raises:
        CalibrationError: a foreign device, a time that is no positive number, a missing column.
    """
    parts: dict[tuple[str, str], list[Group]] = {}
    remarks: list[str] = []
    for name, table in tables:
        # Messages count rows as the table does, whatever index it came with.
        frame, notes = as_in_models(name, table.reset_index(drop=True))
        remarks += notes
        remarks += [table.attrs["understood"]] if "understood" in table.attrs else []
        remarks += _check_devices(name, frame, device_names)
        for kind, part in _by_kind(name, frame):
            columns, notes = checked(name, part, kind)
            remarks += notes
            numbers = part.drop(columns=list(OPTIONAL[kind]), errors="ignore").assign(**columns)
            dtypes = labels(name, part, "dtype")
            if dtypes is None:
                remarks.append(f"{name} names no dtype: taken as bf16")
                dtypes = part["time_s"].map(lambda _: "bf16")
            for label in dtypes.unique():
                try:
                    dtype = canonical(label)
                except CalibrationError:
                    count = int((dtypes == label).sum())
                    remarks.append(f"{name}: {count} points in {label!r} left out: unknown dtype")
                    continue
                for group in _groups(name, kind, dtype, numbers[dtypes == label]):
                    parts.setdefault((group.op_class, group.dtype), []).append(group)
    return [_merge(groups) for groups in parts.values()], remarks


def host_seconds(tables: Iterable[tuple[str, pd.DataFrame]]) -> dict[str, list[float]]:
    """Return the host's measured seconds by what was timed, from rows of class `host`.

    Raises:
        CalibrationError: a time that is no number or that no host takes.
    """
    found: dict[str, list[float]] = {}
    for name, table in tables:
        if "op_class" in table.columns:
            frame = table.reset_index(drop=True)
            rows = frame[frame["op_class"].map(str) == HOST]
            if len(rows):
                for each, seconds in host_times(name, rows).items():
                    found.setdefault(each, []).extend(seconds)
    return found


def _by_kind(name: str, frame: pd.DataFrame) -> Iterable[tuple[str, pd.DataFrame]]:
    """Split a frame that mixes classes: each kind has columns of its own."""
    classes = labels(name, frame, "op_class")
    if classes is None:
        yield kind_of(name, frame), frame
        return
    kinds = classes.map(lambda c: HOST if c == HOST else kind_of_class(c))
    for kind in dict.fromkeys(kinds):
        if kind != HOST:
            part = frame[kinds == kind]
            need(name, part, classes[kinds == kind].iloc[0], ("time_s", *NEEDED[kind]))
            yield kind, part


def _check_devices(name: str, frame: pd.DataFrame, device_names: Iterable[str]) -> list[str]:
    if "device" not in frame.columns:
        return []
    known = tuple(device_names)
    found = sorted(set(frame["device"].fillna("").map(str)))
    if len(found) > 1 and not known:
        raise CalibrationError(f"{name} mixes the devices {_shortened(map(repr, found))}")
    if not known:
        # A device described by measuring it has no name in any list to compare with.
        return [
            f"{name} was measured on {found[0][:60]!r}, which this device has no name to check by"
        ]
    foreign = [each for each in found if not may_name(each, known)]
    if foreign:
        raise CalibrationError(
            f"{name} was measured on {_shortened(map(repr, foreign))}, not on this device "
            f"({', '.join(sorted(known))}); calibrate the device it names, or drop its "
            f"column if the name is wrong"
        )
    nameless = [each for each in found if is_generic(each)]
    return [f"{name} names no device but {each!r}: taken as of this one" for each in nameless]


def _groups(name: str, kind: str, dtype: str, frame: pd.DataFrame) -> Iterable[Group]:
    columns = {column: frame[column].to_numpy(dtype=float) for column in NEEDED[kind]}
    time = frame["time_s"].to_numpy(dtype=float)

    def optional(column: str, default: Any) -> np.ndarray:
        fallback = np.broadcast_to(np.asarray(default, dtype=float), time.shape)
        if column not in frame.columns:
            return fallback.copy()
        values = frame[column].to_numpy(dtype=float)
        return np.where(np.isnan(values), fallback, values)

    if kind == "attention":
        sizes = {
            "batch": columns["batch_size"],
            "q_len": columns["seq_len"],
            "kv_len": optional("kv_len", columns["seq_len"]),
            "heads": columns["heads"],
            "kv_heads": optional("kv_heads", columns["heads"]),
            "head_dim": columns["head_dim"],
            "causal": columns["causal"],
        }
        decode = (sizes["q_len"] == 1) & (sizes["kv_len"] > 1)
        names = np.where(columns["causal"] > 0, "attention_prefill", "attention_encoder")
        names = np.where(decode, "attention_decode", names)
    elif kind == "gemm":
        # A table that does not count its copies of the weights is taken to read them from memory.
        copies = optional("weight_copies", np.inf)
        sizes = {**columns, "batch": optional("batch", 1.0), "copies": copies}
        names = np.full(len(time), "gemm")
    else:
        sizes = {**columns, "flops": optional("flops", 0.0)}
        names = np.full(len(time), "pointwise")
    classes = labels(name, frame, "op_class")
    if classes is not None:
        names = classes.to_numpy()
    for op_class in dict.fromkeys(str(each) for each in names):
        yield Group(op_class, dtype, sizes, time, name).take(names == op_class)


def _merge(groups: list[Group]) -> Group:
    first = groups[0]
    sizes = {name: np.concatenate([g.sizes[name] for g in groups]) for name in first.sizes}
    origin = ", ".join(dict.fromkeys(group.origin for group in groups))
    times = np.concatenate([group.time_s for group in groups])
    return Group(first.op_class, first.dtype, sizes, times, origin)
