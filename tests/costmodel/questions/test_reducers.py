"""Sweeps that are reduced: the same as reducing the whole table, whatever the parts and their order."""

from __future__ import annotations

import json
import pickle
import random
from dataclasses import replace
from functools import reduce as fold
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from costmodel import (
    Calibration,
    get_method,
    histogram,
    load_model,
    pareto,
    parquet_parts,
    sweep,
    top_k,
)
from costmodel.questions import reducers, sweep_engines
from costmodel.questions.chunks import Chunk
from costmodel.questions.parts import Rows
from costmodel.questions.reducers import Part
from costmodel.questions.sweep_plan import SweepPlan
from hardware_specs import get_hardware
from hardware_specs.errors import (
    InvalidFileError,
    InvalidInputError,
    OutputError,
    UnknownNameError,
    VlmRooflineError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd

A100, T4 = "nvidia-a100-sxm4-80gb", "nvidia-t4"
GRID: dict[str, Any] = {
    "model": ["llava-1.5-7b", "qwen2.5-vl-3b"],
    "hardware": [A100, T4],
    "method": ["none", "divprune"],
    "keep": [0.1, 0.5],
    "visual_tokens": None,
    "batch_size": [1, 2, 16],
    "output_tokens": [0, 16, 64],
    "tp": [1, 2],
    "errors": "keep",
}


@pytest.fixture(scope="module")
def whole() -> pd.DataFrame:
    table = sweep(**GRID)
    table["device_s"] = table.time_s * (table.tp * table.pp * table.dp) / table.batch_size
    table.index.name = "row"
    return table


@pytest.fixture
def part_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_engines, "PART_PIECES", 5)


def _that_fit(table: pd.DataFrame, *axes: str) -> pd.DataFrame:
    return table[table.fits.ne(False).fillna(True) & table[list(axes)].notna().all(axis=1)]


def _same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    for table in (found, expected):
        assert table.index.name == "row"
    assert list(found.index) == list(expected.index)
    for name in found:
        mine, other = (
            table[name].astype(object).where(table[name].notna(), None)
            for table in (found, expected)
        )
        assert mine.tolist() == other.tolist(), name


@pytest.mark.usefixtures("part_pieces")
@pytest.mark.parametrize("axis", ["device_s", "-batch_size", "executed_flops", "tpot_s"])
def test_the_best_rows_are_those_of_the_whole_table(axis: str, whole: pd.DataFrame) -> None:
    name = axis.removeprefix("-")
    ordered = _that_fit(whole, name).sort_values(
        name, ascending=not axis.startswith("-"), kind="stable"
    )
    found = sweep(**GRID, reduce=top_k(7, axis), workers=1)
    _same(found, ordered.head(7))
    assert found.attrs["rows"] == len(whole)
    assert found.attrs["unpriced"] == whole.error.notna().sum()
    per = sweep(**GRID, reduce=top_k(2, axis, per=["hardware", "method"]), workers=1)
    expected = ordered.groupby(["hardware", "method"], observed=True).head(2)
    assert sorted(per.index) == sorted(expected.index)


def _unbeaten(table: pd.DataFrame, *axes: str) -> list[int]:
    """Compare every row with every other one."""
    points = np.array(
        [-table[a[1:]] if a.startswith("-") else table[a] for a in axes], dtype=float
    ).T
    kept = []
    for row, point in zip(table.index, points, strict=True):
        no_worse = (points <= point).all(axis=1)
        better = no_worse & (points < point).any(axis=1)
        first = table.index[no_worse & ~better].min() == row
        if not better.any() and first:
            kept.append(row)
    return kept


@pytest.mark.usefixtures("part_pieces")
@pytest.mark.parametrize(
    "axes",
    [
        ("ttft_s", "-batch_size"),
        ("time_s", "peak_memory_bytes", "-visual_tokens"),
        ("device_s", "flops", "tpot_s"),
    ],
)
def test_a_front_is_that_of_the_whole_table(axes: tuple[str, ...], whole: pd.DataFrame) -> None:
    some = _that_fit(whole, *(axis.removeprefix("-") for axis in axes))
    found = sweep(**GRID, reduce=pareto(*axes), workers=1)
    assert sorted(found.index) == _unbeaten(some, *axes)
    _same(found, whole.loc[found.index])
    assert found[axes[0]].is_monotonic_increasing
    found = sweep(**GRID, reduce=pareto(*axes, per="model"), workers=1)
    groups = some.groupby("model", observed=True)
    assert sorted(found.index) == sorted(
        row for _, group in groups for row in _unbeaten(group, *axes)
    )


@pytest.mark.usefixtures("part_pieces")
def test_a_histogram_is_that_of_the_whole_table(whole: pd.DataFrame) -> None:
    edges = [0.01, 0.1, 1.0]
    found = sweep(**GRID, reduce=histogram("time_s", edges, per="hardware"), workers=1)
    for device, group in found.groupby("hardware"):
        values = _that_fit(whole[whole.hardware == device], "time_s").time_s
        counts = [
            int(((values >= low) & (values < high)).sum())
            for low, high in zip(group.low, group.high, strict=True)
        ]
        assert group.rows.tolist() == counts
        assert group.rows.sum() == len(values)


def test_what_does_not_fit_may_be_kept(whole: pd.DataFrame) -> None:
    assert (~whole.fits.fillna(True)).any()
    every = sweep(**GRID, reduce=histogram("time_s", fits=False), workers=1)
    assert every.rows.sum() == whole.time_s.notna().sum()


def _chunks(seed: int) -> list[Chunk]:
    """Pieces of few values, so that most rows are equal to others, some of no value."""
    draw = np.random.default_rng(seed)
    sizes = draw.integers(1, 60, 12)
    firsts = np.cumsum([0, *sizes])
    return [
        Chunk(
            {"hardware": str(number % 2)},
            {
                **{
                    name: draw.choice([1.0, 2.0, 3.0, 4.0, np.nan], rows)
                    for name in ("time_s", "ttft_s", "flops")
                },
                "fits": draw.choice([True, True, False], rows),
            },
            int(rows),
            first=int(firsts[number]),
        )
        for number, rows in enumerate(sizes)
    ]


def _plain(state: dict[Any, Any]) -> dict[Any, Any]:
    return {
        group: each.tolist()
        if isinstance(each, np.ndarray)
        else (each.sorted().points.tolist(), each.sorted().rows.tolist())
        for group, each in state.items()
    }


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "reducer",
    [top_k(9), top_k(3, "-flops", per="hardware"), pareto("time_s", "ttft_s"),
     pareto("time_s", "-ttft_s", "flops", per="hardware"), histogram("time_s", [2, 3], per="hardware")],
    ids=["top", "top-per", "front", "front-per", "histogram"],
)  # fmt: skip
def test_neither_parts_nor_their_order_matter(reducer: Any, seed: int) -> None:
    chunks = _chunks(seed)
    expected = _plain(reducer.reduced(Part(0, iter(chunks), dict)))
    shuffle = random.Random(seed).shuffle
    for _ in range(5):
        shuffle(chunks)
        middle = seed + 3
        states = [reducer.reduced(Part(0, iter([c]), dict)) for c in chunks[:middle]]
        states.append(reducer.reduced(Part(1, iter(chunks[middle:]), dict)))
        shuffle(states)
        assert _plain(fold(reducer.merged, states)) == expected


def test_of_equal_rows_the_first_is_kept() -> None:
    found = sweep("llava-1.5-7b", [A100, A100], calibration=None, reduce=pareto("time_s", "flops"))
    assert list(found.index) == [0]
    found = sweep("llava-1.5-7b", [A100] * 3, calibration=None, reduce=top_k(2))
    assert list(found.index) == [0, 1]


def test_a_device_of_the_towers_own_counts() -> None:
    found = sweep(
        "llava-1.5-7b", A100, tp=2, tower="apart", batch_size=4, reduce=top_k(1, "device_s")
    )
    assert found.device_s.tolist() == [found.time_s[0] * 3 / 4]


def test_nothing_that_fits_is_an_empty_table() -> None:
    for reduce in (top_k(3), pareto("time_s", "flops"), histogram("time_s")):
        found = sweep("llava-1.5-13b", T4, reduce=reduce)
        assert len(found) == 0
        assert found.attrs["rows"] == 1


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reducers, "MOST_KEPT", 5)
    with pytest.raises(InvalidInputError, match="more than 5 rows would be kept"):
        sweep("llava-1.5-7b", A100, batch_size=range(1, 9), reduce=pareto("time_s", "-batch_size"))


@pytest.mark.parametrize(
    "call",
    [
        lambda: top_k(0), lambda: top_k(True), lambda: top_k(10**6), lambda: pareto("time_s"),
        lambda: pareto("time_s", "-time_s"), lambda: histogram("-time_s"), lambda: histogram("time_s", []),
        lambda: histogram("time_s", [2, 1]), lambda: histogram("time_s", ["a"]),
        lambda: histogram("time_s", [float("nan")]), lambda: histogram("time_s", [0.0, float("inf")]),
        lambda: top_k(1, per=5), lambda: top_k(1, per=[["hardware"]]),  # type: ignore[arg-type, list-item]
        lambda: sweep("llava-1.5-7b", A100, reduce="top"),  # type: ignore[arg-type]
        lambda: sweep("llava-1.5-7b", A100, reduce=top_k(1), stage_columns=True),
        lambda: sweep("llava-1.5-7b", A100, workers=2),
        lambda: sweep("llava-1.5-7b", A100, reduce=top_k(1), workers=0),
        lambda: sweep("llava-1.5-7b", A100, reduce=top_k(1), engine="slurm"),
    ],
)  # fmt: skip
def test_refused(call: Callable[[], Any]) -> None:
    with pytest.raises(InvalidInputError):
        call()


def test_unknown_names_are_told() -> None:
    with pytest.raises(UnknownNameError, match="unknown axis 'time'; did you mean"):
        top_k(1, "time")
    with pytest.raises(UnknownNameError, match="unknown argument to group by 'batch_size'"):
        top_k(1, per="batch_size")


def test_a_row_that_cannot_be_priced_stops_a_sweep_that_raises() -> None:
    with pytest.raises(VlmRooflineError, match="fp8"):
        sweep("llava-1.5-7b", A100, precision="fp8", reduce=top_k(1))


@pytest.mark.usefixtures("part_pieces")
def test_parts_hold_the_whole_table(tmp_path: Path, whole: pd.DataFrame) -> None:
    import pyarrow.dataset as dataset

    files = sweep(**GRID, reduce=parquet_parts(tmp_path / "parts"), workers=1)
    assert files.rows.sum() == len(whole)
    read = dataset.dataset(files.file.tolist()).to_table().to_pandas()
    for name in read:
        mine, other = (
            table[name].astype(object).where(table[name].notna(), None) for table in (read, whole)
        )
        assert mine.tolist() == other.tolist(), name


def test_parts_that_are_there_are_not_priced_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_engines, "PART_PIECES", 1)
    asked: dict[str, Any] = {
        "hardware": [A100, T4],
        "reduce": parquet_parts(tmp_path),
        "workers": 1,
    }
    files = sweep("llava-1.5-7b", **asked).file
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    (tmp_path / "part-000001.parquet").unlink()
    assert sweep("llava-1.5-7b", **asked).file.tolist() == files.tolist()
    now = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert {name for name in kept if kept[name] != now[name]} == {"part-000001.parquet"}
    with pytest.raises(InvalidInputError, match="parts of another sweep"):
        sweep("llava-1.5-7b", batch_size=2, **asked)


def test_one_token_and_all_of_them_are_groups_of_their_own() -> None:
    asked: dict[str, Any] = {"method": "fastv", "keep": [1, 1.0], "tp": [1, 2, 16], "workers": 1}
    per = ("keep", "tp", "keep")
    found = sweep("llava-1.5-7b", A100, reduce=histogram("time_s", [0.0], per=per), **asked)
    assert list(found.columns) == ["keep", "tp", "low", "high", "rows"]
    groups = list(zip(found.keep, found.tp, strict=True))
    assert groups == [(keep, tp) for keep in ("1", "1.0") for tp in (1, 2, 16)]
    assert len(sweep("llava-1.5-7b", A100, reduce=top_k(1, per="keep"), **asked)) == 2


def test_parts_of_another_sweep_are_not_taken_for_its_own(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"reduce": parquet_parts(tmp_path), "workers": 1}

    def priced(model: str = "llava-1.5-7b", hardware: Any = A100, **more: Any) -> Any:
        return sweep(model, hardware, **asked, **more)

    priced(method="fastv", keep=1)
    with pytest.raises(InvalidInputError, match="parts of another sweep"):
        priced(method="fastv", keep=1.0)
    (tmp_path / "sweep.json").unlink()
    with pytest.raises(InvalidInputError, match=r"has parts and no sweep\.json"):
        priced()
    (tmp_path / "part-000000.parquet").write_bytes(b"PAR1")
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(InvalidInputError, match="parts of another sweep"):
        priced()
    (tmp_path / "sweep.json").unlink()
    (tmp_path / "part-000000.parquet").unlink()
    priced()
    (tmp_path / "part-000000.parquet").write_bytes(b"PAR1")
    with pytest.raises(InvalidFileError, match="no whole Parquet file"):
        priced()


def test_a_file_that_changed_makes_another_sweep(tmp_path: Path) -> None:
    import hardware_specs

    device = tmp_path / f"{T4}.yaml"
    text = (resources.files(hardware_specs) / "data" / device.name).read_text(encoding="utf-8")
    device.write_text(text)
    asked: dict[str, Any] = {"reduce": parquet_parts(tmp_path / "parts"), "workers": 1}
    sweep("llava-1.5-7b", device, **asked)
    device.write_text(f"{text}\n# another\n")
    with pytest.raises(InvalidInputError, match="parts of another sweep"):
        sweep("llava-1.5-7b", device, **asked)


def test_parts_that_are_there_say_what_was_not_priced(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"precision": ["fp16", "fp8"], "batch_size": [1, 2], "errors": "keep"}
    for _ in range(2):
        found = sweep("llava-1.5-7b", A100, reduce=parquet_parts(tmp_path), workers=1, **asked)
        assert found.attrs["unpriced"] == 2


def test_parts_that_are_there_warn_again(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"reduce": parquet_parts(tmp_path), "workers": 1}
    first, again = (sweep("llava-1.5-7b", ["a100", "l4"], **asked).attrs for _ in range(2))
    assert "a100" in first["warnings"][0]
    assert first["warnings"] == again["warnings"]


def test_an_object_is_the_same_sweep_wherever_it_has_been() -> None:
    given = {
        "model": load_model("llava-1.5-7b"), "hardware": get_hardware(A100),
        "method": get_method("fastv", keep=0.25, layer=3), "calibration": Calibration.load(A100),
    }  # fmt: skip
    identity = SweepPlan(**given).identity()
    json.dumps(identity)
    sent = pickle.loads(pickle.dumps(SweepPlan(**given)))  # noqa: S301 - what was just written
    assert sent.combination(0)["method"] == given["method"]
    sweep(**given)
    assert sent.identity() == identity == SweepPlan(**given).identity()
    other = given | {"hardware": replace(get_hardware(A100), bandwidth_bytes_per_s=1e12)}
    assert SweepPlan(**other).identity() != identity


def test_parts_that_are_not_here_are_missed(tmp_path: Path) -> None:
    reducer = parquet_parts(tmp_path)
    with pytest.raises(OutputError, match="lacks 1 of 1 parts"):
        reducer.result({0: Rows(5, 0)}, None)  # type: ignore[arg-type]
