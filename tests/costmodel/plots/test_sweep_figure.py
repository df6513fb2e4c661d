"""A figure of a sweep's table: which curves, which units, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from costmodel import sweep
from costmodel.plots import plot_sweep
from hardware_specs.errors import InvalidInputError
from vlm_roofline.cli import main

GRID = {"visual_tokens": [64, 576], "method": ["none", "divprune"], "keep": 0.1}


@pytest.fixture(scope="module")
def table():
    return sweep("llava-1.5-7b", ["l4", "a100"], batch_size=[1, 8], **GRID)


def test_a_curve_for_each_setting_that_varies(table):
    (axes,) = plot_sweep(table).axes
    rows = table[(table.hardware == "nvidia-l4") & (table.method == "divprune")]
    rows = rows[rows.batch_size == 8].sort_values("visual_tokens")
    # A device has one calibration and a method one keep: neither makes curves of its own.
    curves = {line.get_label(): line for line in axes.get_lines()}
    assert len(curves) == 2 * 2 * 2
    line = curves["nvidia-l4, batch size 8, divprune, keep 0.1"]
    np.testing.assert_allclose(line.get_ydata(), rows.ttft_s * 1e3)
    assert axes.get_ylabel() == "TTFT (ms)"


def test_axes_and_rows_are_chosen(table):
    chosen = {"hardware": "nvidia-l4", "method": "none", "visual_tokens": "576"}
    (axes,) = plot_sweep(table, x="batch_size", y="peak_memory_bytes", where=chosen).axes
    (line,) = axes.get_lines()
    assert list(line.get_xdata()) == [1, 8]
    assert axes.get_ylabel() == "peak memory bytes (GB)"


@pytest.mark.parametrize(("asked", "said"), [
    ({"y": "ttft"}, "did you mean ttft_s"),
    ({"x": "hardware"}, "holds no numbers"),
    ({"where": {"method": "fastv"}}, "there is: divprune, none"),
    ({"where": {"visual_tokens": "64", "batch_size": "1"}}, "no number varies"),
])  # fmt: skip
def test_refusals(table, asked, said):
    with pytest.raises(InvalidInputError, match=said):
        plot_sweep(table, **asked)


def test_too_many_curves_and_no_sweep(table):
    with pytest.raises(InvalidInputError, match="20 curves"):
        plot_sweep(sweep("llava-1.5-7b", "l4", visual_tokens=[1, 2], batch_size=range(1, 21)))
    with pytest.raises(InvalidInputError, match="several rows"):
        plot_sweep(pd.concat([table, table.iloc[:1]]))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_from_the_file_that_a_sweep_wrote(monkeypatch, tmp_path, capsys, ending):
    monkeypatch.chdir(tmp_path)
    line = f"sweep llava-1.5-7b -d a100,l4 --visual-tokens 64,576 --out sweep.{ending}"
    assert main(line.split()) == 0
    assert main(["plot", "sweep", f"sweep.{ending}", "--out", "sweep.svg"]) == 0
    assert b"<svg" in (tmp_path / "sweep.svg").read_bytes()
    assert main(["plot", "sweep", ".", "--where", "x", "--out", "sweep.svg"]) == 2
    assert "COLUMN=VALUE" in capsys.readouterr().err
