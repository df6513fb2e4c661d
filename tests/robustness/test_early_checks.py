"""Long commands refuse what they cannot do before they measure anything."""

from __future__ import annotations

import pytest

from vlm_roofline import cli

LOOP = ["loop", "--device", "cpu"]
CALIBRATE = ["calibrate", "--device", "cpu"]


@pytest.fixture
def untouched(monkeypatch):
    """Nothing may be measured."""
    from profiling.measuring import campaign
    from profiling.microbench import suite

    def measured(*_, **__):
        pytest.fail("something was measured")

    monkeypatch.setattr(suite, "time_case", measured)
    monkeypatch.setattr(campaign, "measure_point", measured)


@pytest.mark.parametrize(
    "words",
    [
        [*LOOP, "--rounds", "0"],
        [*LOOP, "--rounds", str(10**12)],
        [*LOOP, "--max-time", "nan"],
        [*LOOP, "--method", "nosuch"],
        [*LOOP, "--mode", "fast"],
        [*LOOP, "--mode", "cuda-graph"],
        [*LOOP, "--model", "nosuch"],
        [*LOOP, "--dtype", "fp7"],
        [*LOOP, "--threads", "3"],
        [*LOOP, "--batch-size", "0"],
        [*LOOP, "--max-foreign-load", "-1"],
        [*CALIBRATE, "--dtypes", "fp7"],
        [*CALIBRATE, "--model", "nosuch"],
        [*CALIBRATE, "--hardware", "nosuch"],
        [*CALIBRATE, "--keep-table", "/proc/nosuch/t.json"],
    ],
)
def test_refused_before_anything_is_measured(words, untouched, tmp_path, capsys):
    assert cli.main([*words, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    "words",
    [
        ["--rounds", "0"], ["--rounds", str(10**12)], ["--weights", "x"], ["--max-time", "inf"],
        ["--threads", "0"], ["--noise", "nan"], ["--mode", "x"], ["--visual-tokens", "-1"],
        ["--batch-size", "0"], ["--max-foreign-load", "nan"],
    ],
)  # fmt: skip
def test_profile_is_refused_before_anything_is_measured(
    words, untouched, tmp_path, tiny_source, capsys
):
    argv = [
        "profile",
        tiny_source,
        "--device",
        "cpu",
        "--dtype",
        "fp32",
        "--out",
        str(tmp_path / "out"),
    ]
    assert cli.main([*argv, *words]) == 2
    assert capsys.readouterr().err.startswith("error: ")
