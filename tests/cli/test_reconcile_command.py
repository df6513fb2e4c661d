from __future__ import annotations

import json

import pytest

from vlm_roofline.cli import main


def test_reconcile_prints_runs_errors_and_curves(folder, capsys):
    assert main(["reconcile", str(folder / "runs"), "--calibration", str(folder / "law.json")]) == 0
    printed = capsys.readouterr().out
    for words in ("9.1 %", "FLOPs equal to the unit on 12 of 12 rows", "knee measured", "vision"):
        assert words in printed


def test_reconcile_as_json_with_figures_and_csv(folder, capsys):
    arguments = ["reconcile", str(folder / "runs"), "--calibration", str(folder / "law.json")]
    out = folder / "figures"
    code = main([*arguments, "--json", "--plots", str(out), "--csv", str(folder / "rows.csv")])
    assert code == 0
    document = json.loads(capsys.readouterr().out)
    assert document["summary"]["time"]["total"]["mape"] == pytest.approx(1 / 11)
    assert {path.suffix for path in out.iterdir()} == {".svg"}
    assert len((folder / "rows.csv").read_text().splitlines()) == 13


def test_report_writes_one_file(folder, capsys):
    out = folder / "report.html"
    arguments = ["report", str(folder / "runs"), "--out", str(out), "--no-figures", "--json"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["out"] == str(out)
    assert out.read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    "line",
    [
        "reconcile nowhere",
        "reconcile . --stage lunch",
        "reconcile . --csv x.txt",
        "report nowhere --out x.html",
        "report . --out x.pdf",
        "plot memory llava-1.5-7b -d nvidia-l4 --out x.bmp",
        "plot roofline no-model -d nvidia-l4 --out x.png",
        "plot latency llava-1.5-7b -d nvidia-l4 --out x.png --stage lunch",
        "loop --device cpu --out x --threads 7",
    ],
)
def test_bad_input_is_one_line_and_code_2(line, tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    refused(*line.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["roofline", "--visual-tokens", "64", "--precision", "w4a16"],
        ["latency", "--most", "64", "--calibration", "nvidia-a100-sxm4-80gb"],
        ["memory", "--method", "fastv", "--keep", "0.5", "--output-tokens", "4"],
    ],
)
def test_plot_writes_a_picture(arguments, tmp_path, capsys):
    out = tmp_path / "figure.png"
    kind, *rest = arguments
    base = ["plot", kind, "llava-1.5-7b", "--hardware", "nvidia-a100-sxm4-80gb", "--out", str(out)]
    assert main([*base, *rest, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"out": str(out)}
    assert out.read_bytes().startswith(b"\x89PNG")


def test_the_roof_is_that_of_the_power_limit_that_was_given(tmp_path, monkeypatch):
    from costmodel.plots import roofline as module

    drawn = []
    monkeypatch.setattr(
        "costmodel.plots.plot_roofline",
        lambda *given, **more: drawn.append(module.plot_roofline(*given, **more)) or drawn[0],
    )
    line = ["plot", "roofline", "llava-1.5-7b", "-d", "nvidia-l4", "--power-limit-w", "50"]
    assert main([*line, "--out", str(tmp_path / "figure.png")]) == 0
    labels = drawn[0].axes[0].get_legend_handles_labels()[1]
    assert [label for label in labels if "sustained at 50 W" in label]


def test_latency_of_several_devices_and_methods_is_one_picture(tmp_path, monkeypatch):
    from costmodel.plots import latency as module

    drawn = []
    monkeypatch.setattr(
        "costmodel.plots.plot_latency",
        lambda curves, **more: drawn.append((curves, more)) or module.plot_latency(curves, **more),
    )
    out = tmp_path / "figure.svg"
    assert main(
        ["plot", "latency", "llava-1.5-7b", "-d", "nvidia-l4,h100", "--method", "none,divprune",
         "--keep", "0.5", "--execution", "fused", "--most", "64", "--out", str(out)]
    ) == 0  # fmt: skip
    ((curves, more),) = drawn
    assert [curve.label for curve in curves] == ["none", "divprune"] * 2
    panels = [curve.panel for curve in curves]
    assert panels == ["NVIDIA L4"] * 2 + ["NVIDIA H100 SXM5 80 GB"] * 2
    assert [curve.panel for curve in more["ideal"]] == panels[::2]
    assert curves[1].time_s[-1] < curves[0].time_s[-1]
    assert curves[2].time_s[-1] < curves[0].time_s[-1]
    assert more["across"] == "visual tokens before the method"
