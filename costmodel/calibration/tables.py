"""Reading tables of measured ops: what kind each is follows from its columns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.calibration.dtypes import canonical
from hardware_specs.errors import CalibrationError, MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

#: Columns that tell a table's kind, beside `time_s`.
KINDS = {
    "gemm": ("m", "n", "k"),
    "attention": ("batch_size", "seq_len", "heads", "head_dim", "causal"),
    "stream": ("bytes",),
}
_OPTIONAL: dict[str, dict[str, Any]] = {
    "gemm": {"batch": 1, "op_class": "gemm"},
    "attention": {"kv_len": None, "kv_heads": None},
    "stream": {"flops": 0.0, "op_class": "pointwise"},
}
_SUFFIXES = (".parquet", ".csv")


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
    """Return (name, frame) for every table behind the argument.

    Args:
        table: a DataFrame, the path of a CSV or Parquet file, a folder of them, or a list of these.

    Raises:
        CalibrationError: a path leads nowhere, a folder holds no table, a file cannot be read.
        MissingDependencyError: a Parquet file without pyarrow.
    """
    import pandas as pd

    if isinstance(table, pd.DataFrame):
        return [(str(table.attrs.get("name", "a table")), table)]
    if isinstance(table, (str, Path)):
        return list(_from_path(Path(table)))
    if isinstance(table, (list, tuple)):
        if not table:
            raise CalibrationError("no table was given; name CSV or Parquet files, or a folder")
        return [pair for each in table for pair in read_tables(each)]
    raise CalibrationError(
        f"a table is a DataFrame, a CSV or Parquet path, a folder or a list of these, "
        f"not {type(table).__name__}"
    )


def _from_path(path: Path) -> Iterable[tuple[str, pd.DataFrame]]:
    import pandas as pd

    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix in _SUFFIXES)
        if not files:
            raise CalibrationError(f"the folder {str(path)!r} holds no .csv or .parquet file")
        for file in files:
            yield from _from_path(file)
        return
    if not path.exists():
        raise CalibrationError(f"no table at {str(path)!r}")
    if path.suffix not in _SUFFIXES:
        raise CalibrationError(f"{str(path)!r} is neither .csv nor .parquet")
    try:
        frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except ImportError:
        raise MissingDependencyError("pyarrow", "analysis") from None
    except Exception as error:  # every reader raises its own kind
        raise CalibrationError(f"{str(path)!r} cannot be read: {error}") from None
    yield path.name, frame


def kind_of(name: str, frame: pd.DataFrame) -> str:
    """Return `gemm`, `attention` or `stream`.

    Raises:
        CalibrationError: the columns fit none, or `time_s` is missing; says what would fit.
    """
    columns = set(frame.columns)
    if "time_s" in columns:
        for kind, needed in KINDS.items():
            if columns.issuperset(needed):
                return kind
    kinds = "; ".join(f"{kind}: {', '.join(needed)}" for kind, needed in KINDS.items())
    raise CalibrationError(
        f"{name} has the columns {', '.join(map(str, frame.columns))}; a table of measured ops "
        f"needs time_s and one of these sets: {kinds}"
    )


def group_points(
    tables: Iterable[tuple[str, pd.DataFrame]], device_names: Iterable[str]
) -> tuple[list[Group], list[str]]:
    """Return the points by op class and dtype, and remarks on what was left out.

    Args:
        tables: (name, frame) pairs.
        device_names: names under which the device may appear in a `device` column.

    Raises:
        CalibrationError: a foreign device, a time that is no positive number, a column of the
            wrong type.
    """
    parts: dict[tuple[str, str], list[Group]] = {}
    remarks: list[str] = []
    for name, frame in tables:
        kind = kind_of(name, frame)
        _check_devices(name, frame, device_names)
        _check_numbers(name, frame, kind)
        if "dtype" in frame.columns:
            labels = frame["dtype"].astype(str)
        else:
            remarks.append(f"{name} names no dtype: taken as bf16")
            labels = frame["time_s"].map(lambda _: "bf16")
        for label in labels.unique():
            try:
                dtype = canonical(label)
            except CalibrationError:
                count = int((labels == label).sum())
                remarks.append(f"{name}: {count} points in {label!r} left out: unknown dtype")
                continue
            part = frame[labels == label]
            for group in _groups(name, kind, dtype, part):
                parts.setdefault((group.op_class, group.dtype), []).append(group)
    return [_merge(groups) for groups in parts.values()], remarks


def _check_devices(name: str, frame: pd.DataFrame, device_names: Iterable[str]) -> None:
    if "device" not in frame.columns:
        return
    known = {each.strip().lower() for each in device_names}
    found = sorted({str(each) for each in frame["device"].unique()})
    foreign = [each for each in found if each.strip().lower() not in known]
    if foreign:
        raise CalibrationError(
            f"{name} was measured on {', '.join(map(repr, foreign))}, not on this device "
            f"({', '.join(sorted(device_names)) or 'which has no known device name'}); calibrate "
            f"the device it names, or drop its column if the name is wrong"
        )


def _check_numbers(name: str, frame: pd.DataFrame, kind: str) -> None:
    sizes = [column for column in KINDS[kind] if column != "causal"]
    for column in ("time_s", *sizes):
        try:
            values = frame[column].to_numpy(dtype=float)
        except (TypeError, ValueError):
            raise CalibrationError(f"{name}: column {column!r} holds more than numbers") from None
        for what, bad in (
            ("NaN", np.isnan(values)),
            ("infinite", np.isinf(values)),
            ("not positive", values <= 0),
        ):
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                raise CalibrationError(
                    f"{name}: {int(bad.sum())} of {len(values)} values of {column!r} are {what} "
                    f"(first in row {row}); remove those rows or measure them again"
                )


def _groups(name: str, kind: str, dtype: str, frame: pd.DataFrame) -> Iterable[Group]:
    columns = {column: frame[column].to_numpy(dtype=float) for column in KINDS[kind]}
    time = frame["time_s"].to_numpy(dtype=float)
    defaults = _OPTIONAL[kind]
    if kind == "attention":
        kv_len = frame["kv_len"] if "kv_len" in frame.columns else frame["seq_len"]
        kv_heads = frame["kv_heads"] if "kv_heads" in frame.columns else frame["heads"]
        sizes = {
            "batch": columns["batch_size"],
            "q_len": columns["seq_len"],
            "kv_len": kv_len.to_numpy(dtype=float),
            "heads": columns["heads"],
            "kv_heads": kv_heads.to_numpy(dtype=float),
            "head_dim": columns["head_dim"],
            "causal": columns["causal"],
        }
        decode = (sizes["q_len"] == 1) & (sizes["kv_len"] > 1)
        names = np.where(columns["causal"] > 0, "attention_prefill", "attention_encoder")
        names = np.where(decode, "attention_decode", names)
    else:
        sizes = dict(columns)
        extra = "batch" if kind == "gemm" else "flops"
        sizes[extra] = (
            frame[extra].to_numpy(dtype=float)
            if extra in frame.columns
            else np.full(len(time), float(defaults[extra]))
        )
        names = (
            frame["op_class"].astype(str).to_numpy()
            if "op_class" in frame.columns
            else np.full(len(time), defaults["op_class"])
        )
    for op_class in dict.fromkeys(str(each) for each in names):
        yield Group(op_class, dtype, sizes, time, name).take(names == op_class)


def _merge(groups: list[Group]) -> Group:
    first = groups[0]
    sizes = {name: np.concatenate([g.sizes[name] for g in groups]) for name in first.sizes}
    origin = ", ".join(dict.fromkeys(group.origin for group in groups))
    times = np.concatenate([group.time_s for group in groups])
    return Group(first.op_class, first.dtype, sizes, times, origin)
