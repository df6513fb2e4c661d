"""`vlm-roofline audit`: the verdict with what altered copies reach, one document, one line of refusal."""

from __future__ import annotations

import json

import pytest

from vlm_roofline.cli import audit as audit_command
from vlm_roofline.cli import main

TABLE = """# hardware: Tesla V100
Method,Tokens,FLOPs (T),Ratio (%),Prefill time (ms)
Vanilla,576,8.0,100,58.1
VisionZip,64,1.2,30,18.2
"""


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(TABLE)
    return str(path)


def run(capsys, *words):
    code = main(["audit", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_people_read_the_verdict_and_what_speaks_against_the_table(capsys, table):
    code, out, err = run(capsys, table, "--model", "llava-1.5-7b", "--copies", "99")
    assert (code, err) == (0, "")
    assert "of 99 altered copies prints" in out
    assert "gives 15 %, the table prints 30 %" in out
    assert "58.1 ms: at least 63.6 ms (the printed 7.95 TFLOP at 125 TFLOP/s)" in out
    assert "best set of assumptions, flops" in out


def test_programs_read_one_document(capsys, table):
    code, out, _ = run(capsys, table, "--model", "llava-1.5-7b", "--copies", "0", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["p_value"] is None
    assert [each["kind"] for each in document["contradictions"]] == ["ratio"]
    assert [each["printed"] for each in document["impossible"]] == ["58.1"]


def test_reproduced_tables_have_names(capsys):
    code, out, _ = run(capsys, "prumerge-table2", "--copies", "9")
    assert code == 0
    assert "700" in out
    assert "other rows of the table contradict it: PruMerge, flops 0.28 T" in out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["{table}"], "no column names the model"),
        (
            ["{table}", "--column", "foo=flops"],
            "no column 'foo'; there is: 'Method', 'Tokens', 'FLOPs (T)'",
        ),
        (["{table}", "--model", "llava-1.5-8b"], "did you mean"),
        (["nosuch.csv"], "there is no such file"),
        (["flops-ladder"], "unknown table of counts"),
        (["{table}", "--column", "Cost"], "HEADING=ROLE UNIT"),
        (["{table}", "--column", "Tokens=price"], "cannot be 'price'"),
        (
            ["{table}", "--model", "llava-1.5-7b", "--copies", "-1"],
            "--copies must be a whole number from 0 to 100000, not -1",
        ),
    ],
)
def test_bad_input_is_one_line(refused, table, words, reason):
    assert reason in refused("audit", *(word.format(table=table) for word in words))


def test_a_missing_file_draws_no_bar(capsys, monkeypatch):
    monkeypatch.setattr(audit_command, "progress", lambda *_args, **_options: pytest.fail("a bar"))
    assert run(capsys, "nosuch.csv")[0] == 2
