from __future__ import annotations

import pytest

from profiling.reconciling.gap import PARTS
from profiling.report import (
    plot_accuracy,
    plot_gap,
    plot_gap_over_tokens,
    reconciliation_figures,
    save_figures,
)


def row(tokens=64, measured=0.020, **parts):
    found = dict.fromkeys(PARTS, 0.0) | parts
    explained = sum(value for name, value in found.items() if name != "unexplained_s")
    ideal = 0.008
    found["unexplained_s"] = measured - ideal - explained
    return {
        **found,
        "visual_tokens": tokens,
        "stage": "total",
        "measured_s": measured,
        "ideal_s": ideal,
        "predicted_s": ideal + explained,
        "low_s": ideal,
        "high_s": measured * 1.1,
        "noise_s": 0.001,
        "within_noise": False,
        "regime": "memory",
        "above_roof": None,
    }


ROWS = [
    row(1, 0.018, efficiency_memory_s=0.004, granularity_s=0.003, host_s=0.002),
    row(64, 0.020, efficiency_memory_s=0.004, granularity_s=-0.001, left_out_vision_s=0.005),
    row(576, 0.055, efficiency_compute_s=0.02, left_out_vision_s=0.005, left_out_method_s=0.001),
]


@pytest.mark.parametrize(
    ("figure", "x", "y"),
    [
        (lambda: plot_accuracy(ROWS, title="a device"), "measured (ms)", "predicted (ms)"),
        (lambda: plot_gap(ROWS[0], title="a run"), "time (ms)", ""),
        (lambda: plot_gap_over_tokens(ROWS, title="a curve"), "visual tokens", "(ms)"),
    ],
)
def test_axes_are_labelled_with_units_and_titled(figure, x, y):
    (axes,) = figure().axes
    assert x in axes.get_xlabel()
    assert y in axes.get_ylabel()
    assert axes.get_title(loc="left").strip()


def test_a_waterfall_walks_from_the_ideal_to_the_measured_time():
    axes = plot_gap(ROWS[0]).axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [
        "ideal roofline",
        "efficiency, memory",
        "kernel granularity",
        "launch and host floor",
        "predicted",
        "unexplained",
        "measured",
    ]
    bars = dict(zip(labels, axes.patches, strict=True))
    ends = {label: bar.get_x() + bar.get_width() for label, bar in bars.items()}
    assert ends["ideal roofline"] == pytest.approx(8.0)
    assert ends["launch and host floor"] == pytest.approx(17.0)
    assert ends["unexplained"] == pytest.approx(ends["measured"]) == pytest.approx(18.0)


def test_stacks_reach_the_measured_time_with_negative_parts_below_zero():
    axes = plot_gap_over_tokens(ROWS).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "64", "576"]
    sums = dict.fromkeys(range(3), 0.0)
    for bar in axes.patches:
        sums[round(bar.get_x() + bar.get_width() / 2)] += bar.get_height()
    assert list(sums.values()) == pytest.approx([18.0, 20.0, 55.0])
    assert min(bar.get_y() + bar.get_height() for bar in axes.patches) < 0


def test_points_above_a_roof_are_ringed():
    rows = [ROWS[0], {**ROWS[1], "above_roof": "compute"}]
    labels = [text.get_text() for text in plot_accuracy(rows).legends[0].get_texts()]
    assert "faster than its roof" in labels
    assert "memory-bound" in labels


def test_points_may_be_coloured_by_any_column():
    rows = [{**row, "mode": mode} for row in ROWS for mode in ("eager", "cuda-graph")]
    labels = [text.get_text() for text in plot_accuracy(rows, by="mode").legends[0].get_texts()]
    assert {"eager", "cuda-graph"} <= set(labels)


def test_a_reconciliation_gives_named_files(tmp_path):
    from types import SimpleNamespace

    from hardware_specs import get_hardware

    rows = tuple(
        {
            **row, "model": "llava-1.5-7b", "dtype": "bf16", "method": "none", "text_tokens": 40,
            "batch_size": 1, "mode": "eager", "attention": "sdpa", "cache": "warm",
            "execution": "hf-eager", "predicted_kernels": 1646,
            "measured_peak_bytes": 15e9, "predicted_peak_bytes": 14.9e9,
        }
        for row in ROWS
    )  # fmt: skip
    result = SimpleNamespace(
        rows=rows, ops=(), energy=(), hardware=get_hardware("nvidia-a100-sxm4-80gb"), calibration=None,
        calibration_name=None, software={"torch": "2.13"},
    )  # fmt: skip
    figures = reconciliation_figures(result)
    assert list(figures) == [
        "predicted-vs-measured", "latency", "memory", "gap-1", "waterfall-most-tokens",
        "waterfall-fewest-tokens",
    ]  # fmt: skip
    paths = save_figures(figures, tmp_path / "new" / "folder", suffix=".png")
    assert all(path.stat().st_size > 5000 for path in paths)
    for figure in figures.values():
        texts = [text.get_text() for text in figure.axes[0].texts]
        assert any("NVIDIA A100" in text for text in texts)  # every figure says its device
