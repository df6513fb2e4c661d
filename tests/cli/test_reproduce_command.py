from __future__ import annotations

import csv
import json

import pytest

from costmodel.reproduce import list_tables, reproduce
from vlm_roofline.cli import main


def test_list_names_every_table(capsys):
    assert main(["reproduce", "list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in list_tables())


def test_list_as_json(capsys):
    assert main(["reproduce", "list", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [table["name"] for table in document["tables"]] == list(list_tables())


@pytest.mark.parametrize("name", list_tables())
def test_every_table_prints(capsys, name):
    assert main(["reproduce", name]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "\x1b" not in captured.out  # no colour on a pipe
    for row in reproduce(name).rows:
        assert str(row["published"] or "-") in captured.out
        assert (row["verdict"] or "-") in captured.out


def test_prumerge_says_31_of_32(capsys):
    assert main(["reproduce", "prumerge-table2"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "32 published numbers: 31 same digits, 1 differs" in printed
    assert "probably a copying slip" in printed
    assert "81 to 88" in printed


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_numbers_and_names_stay_whole_at_any_width(width):
    from rich.console import Console

    from vlm_roofline.cli.reproduce_view import reproduction_view

    console = Console(width=width, color_system=None)
    table = reproduce("prumerge-table2")
    with console.capture() as capture:
        for part in reproduction_view(table, width):
            console.print(part)
    printed = capture.get()
    assert max(map(len, printed.splitlines())) <= width
    if width >= 80:
        words = printed.split()
        assert all(row["published"] in words for row in table.rows)
    if width >= 104:
        assert "Vicuna-13B INT4 LLaVA-1.5" in printed
    assert ("Page" in printed.split("Verdict")[0]) == (width >= 110)


def test_json_is_the_api(capsys):
    assert main(["reproduce", "fastv", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps(reproduce("fastv").to_dict()))


def test_csv_has_every_row_and_column(capsys, tmp_path):
    out = tmp_path / "table.csv"
    assert main(["reproduce", "shortv", "--out", str(out)]) == 0
    assert "25 rows written" in " ".join(capsys.readouterr().out.split())
    with out.open(newline="") as file:
        lines = list(csv.DictReader(file))
    table = reproduce("shortv")
    assert len(lines) == len(table.rows)
    assert list(lines[0]) == [column.name for column in table.columns]
    assert list(tmp_path.iterdir()) == [out]


def test_json_and_csv_together(capsys, tmp_path):
    out = tmp_path / "table.csv"
    assert main(["reproduce", "shortv", "--json", "--out", str(out)]) == 0
    json.loads(capsys.readouterr().out)
    assert out.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "unknown table 'nothing'"),
        (["prumerge-table3"], "did you mean prumerge-table2"),
        (["fastv", "--out", "table.parquet"], "must end in .csv"),
        (["list", "--out", "table.csv"], "name a table"),
        (["fastv", "--out", "/nonexistent/folder/table.csv"], "cannot write"),
        ([], "Missing argument"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(refused, arguments, said):
    assert said in refused("reproduce", *arguments)
