from __future__ import annotations

import csv
import io
import json

import pytest

from costmodel.reproduce import describe_tables, list_tables, reproduce
from costmodel.reproduce.published import Ladder, PaperTable, PruMergeTable, load_published
from costmodel.reproduce.registry import _modules
from hardware_specs.errors import InvalidFileError, UnknownNameError

PAPERS = ("divprune", "fastv", "llava-mini", "pyramiddrop", "shortv", "sparsevlm")
#: How far a gated row that fits may lie from the printed number.
FIT = {
    "divprune": 0.0003,
    "fastv": 0.013,
    "llava-mini": 0.015,
    "pyramiddrop": 0.004,
    "shortv": 0.007,
    "sparsevlm": 0.0053,
}


@pytest.fixture(scope="module", params=PAPERS)
def paper(request):
    return reproduce(request.param)


def test_gated_rows_fit_or_say_why_not(paper):
    for row in paper.rows:
        if row["gated"] and row["verdict"] == "differs":
            assert row["note"], row
        elif row["gated"]:
            assert abs(row["relative_error"]) <= FIT[paper.name], row


def test_rows_that_had_an_input_solved_are_not_gated(paper):
    for row in paper.rows:
        if "solved" in (row["note"] or ""):
            assert not row["gated"]


def test_verdicts_add_up(paper):
    verdicts = [row["verdict"] for row in paper.rows]
    summary = paper.summary
    assert summary["rows"] == len(verdicts)
    assert summary["same_digits"] == verdicts.count("same digits")
    assert summary["within_tolerance"] == verdicts.count("within tolerance")
    assert len(summary["differ"]) == verdicts.count("differs")
    assert sum(map(verdicts.count, ("same digits", "within tolerance", "differs"))) == len(verdicts)


def test_a_reason_is_given_only_where_a_row_differs(paper):
    table = load_published(paper.name.replace("-", "_"), PaperTable)
    for published, row in zip(table.rows, paper.rows, strict=True):
        if published.misfit is not None:
            assert row["verdict"] == "differs"


def rows_of(name, **where):
    return [
        row
        for row in reproduce(name).rows
        if all(row[key] == value for key, value in where.items())
    ]


def test_fastv_13b_to_the_printed_digit():
    rows = rows_of("fastv", model="LLaVA-1.5-13B")
    assert len(rows) == 10
    assert {row["verdict"] for row in rows} == {"same digits"}


def test_fastv_7b_odd_cell():
    (row,) = rows_of("fastv", model="LLaVA-1.5-7B", method="FastV K=0 R=90%")
    # 36 + 57.6 = 93.6 tokens: 4*93.6*4096^2 + 2*93.6^2*4096 + 2*93.6*4096*11008 = 14.79e9 MAC.
    assert row["recomputed"] == pytest.approx(14.79, abs=0.01)
    assert row["published"] == "18.9"
    assert reproduce("fastv").summary["gated_differ"] == ["LLaVA-1.5-7B, FastV K=0 R=90%"]


def test_shortv_and_pyramiddrop_every_cell():
    for name, cells in (("shortv", 25), ("pyramiddrop", 15)):
        assert reproduce(name).summary["same_digits"] == cells


def test_divprune_script_output_to_the_printed_digit():
    for model in ("LLaVA-1.5-7B", "LLaVA-1.5-13B"):
        rows = rows_of("divprune", model=model)
        assert len(rows) == 3
        assert {row["verdict"] for row in rows} == {"same digits"}


def test_llava_mini_parts_to_the_printed_digit():
    rows = rows_of("llava-mini", model="LLaVA-1.5-7B, 336 px")
    assert [row["part"] for row in rows] == ["vision", "projector", "llm"]
    assert {row["verdict"] for row in rows} == {"same digits"}


def test_sparsevlm_rows_without_a_schedule_are_not_gated():
    rows = reproduce("sparsevlm").rows
    assert [row["method"].split(",")[0] for row in rows if row["gated"]] == ["vanilla"] + 3 * [
        "ToMe"
    ]


def test_ladder_rises_and_spans_a_factor_of_three():
    ladder = reproduce("flops-ladder")
    counts = [row["recomputed_flops"] for row in ladder.rows]
    assert counts == sorted(counts)
    assert ladder.summary["spread"] == pytest.approx(3.02, abs=0.01)
    assert ladder.summary["differ"] == []
    printed = {row["paper"]: row["published"] for row in ladder.rows}
    assert printed["PyramidDrop"] == "3.82"
    assert printed["PruMerge"] == "9.3"
    rounded = {f"{row['recomputed_flops'] / 1e12:.1f}" for row in ladder.rows}
    assert {"3.2", "3.8", "4.6", "8.5", "8.7", "8.8", "9.1", "9.3", "9.6"} <= rounded


def test_ladder_has_this_projects_own_count():
    (own,) = [row for row in reproduce("flops-ladder").rows if row["convention"] == "torch"]
    assert own["recomputed_flops"] == 8_583_722_926_080
    assert own["published"] is None
    assert own["verdict"] is None


def test_secondary_rungs_claim_nothing():
    for row in reproduce("flops-ladder").rows:
        if row["grade"] == "secondary":
            assert row["verdict"] == "length solved"
        elif row["grade"] == "primary":
            assert row["verdict"] in ("same digits", "within tolerance")


@pytest.mark.parametrize("name", list_tables())
def test_json_csv_and_frame_hold_the_same(name):
    table = reproduce(name)
    document = json.loads(json.dumps(table.to_dict(), allow_nan=False))
    names = [column["name"] for column in document["columns"]]
    assert document["schema_version"] == 1
    assert document["name"] == name
    assert all(set(row) == set(names) for row in document["rows"])
    assert set(table.shown) <= set(names)
    assert set(table.group_by) <= set(names)
    lines = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert [line["published"] for line in lines] == [row["published"] or "" for row in table.rows]
    frame = table.to_frame()
    assert list(frame.columns) == names
    assert len(frame) == len(table.rows)


def test_tables_are_the_files_in_the_folder():
    assert set(list_tables()) >= {*PAPERS, "prumerge-table2", "flops-ladder"}
    assert list(describe_tables()) == list(list_tables())


def test_a_new_file_is_a_new_table(tmp_path, monkeypatch):
    from costmodel.reproduce import tables

    (tmp_path / "my_table.py").write_text(
        "from costmodel.reproduce import Reproduction\nTITLE = 'mine'\n"
        "def build():\n    return Reproduction('my-table', TITLE, '', (), (), {})\n"
    )
    monkeypatch.setattr(tables, "__path__", [*tables.__path__, str(tmp_path)])
    _modules.cache_clear()
    try:
        assert "my-table" in list_tables()
        assert reproduce("my-table").title == "mine"
    finally:
        monkeypatch.undo()
        _modules.cache_clear()


def test_unknown_tables():
    with pytest.raises(UnknownNameError, match="did you mean prumerge-table2"):
        reproduce("prumerge")


@pytest.mark.parametrize(
    ("name", "schema"),
    [("fastv", PruMergeTable), ("prumerge_table2", PaperTable), ("fastv", Ladder)],
)
def test_a_file_that_does_not_hold_is_named(name, schema):
    with pytest.raises(InvalidFileError, match=name):
        load_published(name, schema)


@pytest.mark.parametrize(
    "change",
    [
        {"published": "about 9"},
        {"published": 9.3},
        {"k": 2},
        {"visual": -1},
        {"unknown_key": 1},
        {"prune": 1.5, "k": 2},
    ],
)
def test_bad_rows_are_refused(change):
    from pydantic import ValidationError

    row = {"model": "m", "shape": "s", "method": "x", "visual": 1, "published": "9.3", "unit": "T"}
    table = {
        "source": {"paper": "p", "arxiv": "1", "table": "t", "grade": "primary"},
        "tolerance": 0.1,
        "rows": [row],
    }
    PaperTable.model_validate(table)
    with pytest.raises(ValidationError):
        PaperTable.model_validate(table | {"rows": [row | change]})
