from __future__ import annotations

import sys
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from costmodel import estimate
from costmodel.plots import (
    LatencyCurve,
    MeasuredPoints,
    PlacedOp,
    figure_bytes,
    latency_curve,
    placed_ops,
    plot_latency,
    plot_memory,
    plot_roofline,
    save_figure,
)
from hardware_specs import get_hardware
from hardware_specs.errors import InvalidInputError, MissingDependencyError, OutputError

A100 = "nvidia-a100-sxm4-80gb"


@pytest.fixture(scope="module")
def cost():
    return estimate(
        "llava-1.5-7b",
        A100,
        execution="hf-eager",
        calibration=A100,
        precision="bf16",
        output_tokens=2,
    )


@pytest.fixture(scope="module")
def figures(cost):
    hardware = get_hardware(A100)
    ops = placed_ops(cost)
    slower = [PlacedOp(o.name, o.op_class, o.flops, o.hbm_bytes, o.time_s * 1.5) for o in ops]
    curve = latency_curve("llava-1.5-7b", A100, calibration=A100, precision="bf16")
    ideal = latency_curve("llava-1.5-7b", A100, execution="fused", label="ideal roofline")
    points = MeasuredPoints("measured", [1, 64, 576], [0.02, 0.024, 0.055], [0.001, None, 0.002])
    return {
        "roofline": plot_roofline(
            hardware, ops, dtype="bf16", title="of $ome model", measured=slower
        ),
        "latency": plot_latency([curve], ideal=[ideal], measured=[points], title="a device"),
        "memory": plot_memory(cost.memory, title="a model", measured={"logits": 15e9}),
    }


@pytest.mark.parametrize(
    ("name", "x", "y"),
    [
        ("roofline", "FLOP per byte", "TFLOP/s"),
        ("latency", "visual tokens", "(ms)"),
        ("memory", "phase", "(GB)"),
    ],
)
def test_axes_are_labelled_with_units_and_titled(figures, name, x, y):
    (axes,) = figures[name].axes
    assert x in axes.get_xlabel()
    assert y in axes.get_ylabel()
    assert axes.get_title(loc="left").strip()
    assert figures[name].legends
    assert axes.get_legend() is None  # below the axes, where it covers nothing


@pytest.mark.parametrize("name", ["roofline", "latency", "memory"])
def test_pictures_are_written_whole_and_alike(figures, name, tmp_path):
    png = save_figure(figures[name], tmp_path / "figure.png")
    assert png.read_bytes().startswith(b"\x89PNG")
    svg = save_figure(figures[name], tmp_path / "figure.svg").read_bytes()
    assert ET.fromstring(svg).tag.endswith("svg")  # noqa: S314 - our own picture
    assert figure_bytes(figures[name], "svg") == svg
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure.png", "figure.svg"]


def test_another_ending_and_a_missing_folder_are_refused(figures, tmp_path):
    with pytest.raises(InvalidInputError, match=r"\.png, \.svg or \.pdf"):
        save_figure(figures["memory"], tmp_path / "figure.bmp")
    with pytest.raises(OutputError, match="cannot write"):
        save_figure(figures["memory"], tmp_path / "no" / "figure.png")


def test_ops_lie_under_the_flat_roof(cost):
    peak = get_hardware(A100).peak("bf16")
    ops = placed_ops(cost)
    assert len(ops) > 20
    for op in ops:
        assert op.flops / op.time_s <= peak
    ideal = placed_ops(estimate("llava-1.5-7b", A100))
    bandwidth = get_hardware(A100).bandwidth_bytes_per_s
    for op in ideal:
        # Attention's softmax runs beside its products, on the vector units: a few per cent.
        slack = 1.05 if op.op_class.startswith("attention") else 1.001
        assert op.flops / op.time_s <= min(peak, bandwidth * op.flops / op.hbm_bytes) * slack


def test_ops_of_one_name_are_added_up(cost):
    rows = [row for row in cost.ops if row.stage == "prefill" and row.name == "q_proj"]
    (placed,) = [op for op in placed_ops(cost) if op.name == "prefill q_proj"]
    assert placed.flops == sum(row.executed_flops for row in rows)


def test_a_curve_is_the_estimates():
    curve = latency_curve("llava-1.5-7b", A100, calibration=A100, most=64)
    cost = estimate("llava-1.5-7b", A100, visual_tokens=64, execution="hf-eager", calibration=A100)
    assert curve.visual_tokens[-1] == 64
    assert curve.time_s[-1] == pytest.approx(cost.totals.ttft_s)
    assert curve.low_s[-1] == pytest.approx(cost.totals.time_low_s)
    assert curve.kernels == cost.totals.kernels
    prefill = latency_curve("llava-1.5-7b", A100, calibration=A100, most=64, stage="prefill")
    assert prefill.time_s[-1] == pytest.approx(cost.stages["prefill"].time_s)
    assert prefill.host_floor_s == pytest.approx(cost.stages["prefill"].host_s)


def test_a_tower_under_another_plan():
    mixed = latency_curve(
        "llava-1.5-7b", A100, execution="fused", tower_execution="hf-eager", most=8
    )
    fused = estimate("llava-1.5-7b", A100, visual_tokens=8)
    eager = estimate("llava-1.5-7b", A100, visual_tokens=8, execution="hf-eager")
    expected = fused.stages["prefill"].time_s + sum(
        eager.stages[name].time_s for name in ("vision", "projector", "reduction")
    )
    assert mixed.time_s[-1] == pytest.approx(expected)


def test_each_device_has_axes_of_its_own_and_one_legend_names_all() -> None:
    curves = [
        latency_curve("llava-1.5-7b", device, execution=plan, most=64, panel=device)
        for device in (A100, "nvidia-l4")
        for plan in ("hf-eager", "fused")
    ]
    figure = plot_latency(curves, title="two devices")
    assert [axes.texts[-1].get_text().split(":")[0] for axes in figure.axes] == [A100, "nvidia-l4"]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(set(names)) == len(names)
    assert curves[0].label in names
    drawn = [
        {line.get_label(): line.get_color() for line in axes.get_lines()} for axes in figure.axes
    ]
    for label in {curve.label for curve in curves}:
        assert drawn[0][label] == drawn[1][label]
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width
    assert all(box.y1 <= axes.get_window_extent().y0 for axes in figure.axes)


def _legend_texts(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def _shown_texts(figure):
    (axes,) = figure.axes
    legend = [text for each in figure.legends for text in each.get_texts()]
    labels = [axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label]
    # A tick outside the limits keeps a label that is not drawn.
    low, high = axes.get_xlim()
    ticks = [text for text in axes.get_xticklabels() if low <= text.get_position()[0] <= high]
    found = [*legend, *axes.texts, *labels, *ticks]
    return [text for text in found if text.get_text().strip()]


@pytest.mark.parametrize("size", [(5.0, 4.2), (7.2, 5.0), (11.0, 6.5)])
@pytest.mark.parametrize("name", ["roofline", "latency", "memory"])
def test_no_label_lies_over_another_at_any_size(name, size, cost):
    from matplotlib.text import Text  # an annotation's own extent has its arrow in it

    figure = {
        "roofline": lambda: plot_roofline(get_hardware(A100), placed_ops(cost), dtype="bf16"),
        "latency": lambda: plot_latency([latency_curve("llava-1.5-7b", A100, calibration=A100)]),
        "memory": lambda: plot_memory(
            estimate("llava-1.5-7b", "nvidia-v100-pcie-16gb", output_tokens=64).memory
        ),
    }[name]()
    figure.set_size_inches(*size)
    figure.draw_without_rendering()
    boxes = [(text.get_text(), Text.get_window_extent(text)) for text in _shown_texts(figure)]
    assert len(boxes) > 8
    for index, (text, box) in enumerate(boxes):
        assert box.x0 >= -1, text
        assert box.x1 <= figure.bbox.x1 + 1, text
        for other, second in boxes[:index]:
            assert not box.overlaps(second), (text, other)


def test_the_knee_and_the_host_floor_are_written_on_the_figure():
    counts = np.arange(1, 101)
    times = np.maximum(0.010, counts * 2e-4)
    curve = LatencyCurve("eager", counts, times, None, None, 0.010, 1299, 55)
    texts = _legend_texts(plot_latency([curve]))
    assert any("host floor 10.0 ms (1,299 launches)" in text for text in texts)
    assert any("knee 55 tokens" in text for text in texts)
    plain = LatencyCurve("eager", counts, times)
    texts = _legend_texts(plot_latency([plain]))
    assert not any("floor" in text or "knee" in text for text in texts)


def test_the_memory_figure_marks_peak_and_capacity(cost):
    texts = [text.get_text() for text in plot_memory(cost.memory).axes[0].texts]
    peak = cost.memory.peak_memory_bytes / 1e9
    assert f"peak {peak:.2f}" in texts
    assert any("above this picture" in text for text in _legend_texts(plot_memory(cost.memory)))
    tight = plot_memory(estimate("llava-1.5-7b", "nvidia-v100-pcie-16gb").memory)
    assert "capacity 16.9 GB" in _legend_texts(tight)


def test_a_dollar_in_a_name_is_no_formula(figures):
    assert figure_bytes(figures["roofline"], "svg") != b""  # mathtext would fail on "$ome model"


def test_without_matplotlib_the_message_says_what_to_install(cost, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match="analysis"):
        plot_memory(cost.memory)


def test_a_pdf_embeds_truetype_fonts(figures, tmp_path):
    pdf = save_figure(figures["memory"], tmp_path / "figure.pdf").read_bytes()
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
