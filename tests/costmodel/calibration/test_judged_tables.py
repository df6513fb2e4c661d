"""Tables are judged before they are fitted: columns, units, both roofs, held-out errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from costmodel.calibration import Calibration, fit_calibration
from costmodel.calibration.tables import group_points
from hardware_specs.errors import CalibrationError

A100 = "nvidia-a100-sxm4-80gb"
PEAK, BANDWIDTH = 312e12, 2.039e12


def gemms(rows=(16, 32, 64, 128, 192, 256, 512, 1024, 2048), faster=1.0, noise=0.02, **columns):
    shapes = [(4096, 4096), (11008, 4096), (4096, 11008), (1024, 1024), (4096, 1024), (5120, 5120)]
    m, (n, k) = (
        np.repeat(rows, len(shapes)),
        np.tile(np.array(shapes).T, len(rows)),
    )
    moved = 2.0 * (m * k + k * n + m * n)
    time = 4e-6 + np.maximum(2.0 * m * n * k / (0.8 * PEAK), moved / (0.85 * BANDWIDTH))
    time *= np.exp(noise * np.random.default_rng(0).standard_normal(len(m))) / faster
    return pd.DataFrame({"m": m, "n": n, "k": k, "time_s": time, "dtype": "bf16"}).assign(**columns)


def streams(unit=1.0, low=16, high=30):
    size = 2 ** np.arange(low, high + 1)
    time = (3e-6 + size / (0.85 * BANDWIDTH)) * unit
    return pd.DataFrame({"op_class": "norm", "dtype": "bf16", "bytes": size, "time_s": time})


def attention():
    q = np.repeat([64, 128, 256, 384, 616, 1024, 2048, 4096], 2)
    heads = np.tile([16, 32], 8)
    time = 5e-6 + 2.0 * heads * 128 * q * q / (0.65 * PEAK)
    return pd.DataFrame(
        {
            "batch_size": 1, "seq_len": q, "heads": heads, "head_dim": 128, "causal": 1,
            "time_s": time, "dtype": "bf16",
        }
    )  # fmt: skip


def hosts(seconds, name="module_kernel"):
    rows = pd.DataFrame({"op_class": "host", "name": name, "dtype": "bf16", "time_s": seconds})
    return pd.concat([rows, streams()], ignore_index=True)


def refused(table, **options):
    with pytest.raises(CalibrationError) as caught:
        fit_calibration(table, A100, resamples=1, **options)
    return str(caught.value)


TABLES = {"gemm": gemms, "attention": attention, "stream": streams}


@pytest.mark.parametrize(
    ("kind", "column"),
    [
        ("gemm", "m"), ("gemm", "n"), ("gemm", "k"), ("gemm", "batch"), ("gemm", "time_s"),
        ("attention", "batch_size"), ("attention", "seq_len"), ("attention", "kv_len"),
        ("attention", "heads"), ("attention", "kv_heads"), ("attention", "head_dim"),
        ("attention", "causal"), ("stream", "bytes"), ("stream", "flops"), ("stream", "time_s"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("cell", ["x", "", -3, float("inf"), "9.8e-06\ufffd", "1_0"])
def test_a_bad_cell_in_any_column_that_is_read(kind, column, cell, tmp_path):
    frame = TABLES[kind]()
    full = frame[column].tolist() if column in frame else [1] * len(frame)
    frame[column] = pd.Series([*full[:5], cell, *full[6:]], dtype=object)
    frame.to_csv(tmp_path / "t.csv", index=False)
    for table in (tmp_path / "t.csv", frame):
        said = refused(table)
        assert f"{column!r}" in said
        assert "row 5" in said
        assert f"1 of {len(frame)} values" in said


@pytest.mark.parametrize("column", ["batch", "kv_len", "flops", "causal"])
def test_zero_in_every_second_row(column):
    kind = {"batch": "gemm", "flops": "stream"}.get(column, "attention")
    frame = TABLES[kind]()
    if column in ("flops", "causal"):  # zero is right here
        fit_calibration(frame.assign(**{column: 0}), A100, resamples=1)
    else:
        frame[column] = [0, 1] * (len(frame) // 2)
        assert f"{len(frame) // 2} of {len(frame)} values of {column!r} are not positive" in (
            refused(frame)
        )


def test_causal_is_a_flag_in_any_spelling():
    frame = attention()
    for flag in (1, True, 1.0, "True", "true"):
        (group,), _ = group_points([("t", frame.assign(causal=flag))], ())
        assert group.op_class == "attention_prefill"
    assert "neither 0 nor 1" in refused(frame.assign(causal=2))


@pytest.mark.parametrize("column", ["op_class", "dtype"])
def test_a_name_that_some_rows_lack(column):
    frame = streams()
    frame.loc[[3, 5], column] = None
    assert f"2 of 15 values of {column!r} are empty (first in row 3)" in refused(frame)


def test_an_empty_optional_column_is_as_if_absent():
    frame = gemms()
    found = fit_calibration(frame.assign(batch=np.nan), A100, resamples=1)
    assert any("column 'batch' is empty: taken as absent" in w for w in found.warnings)
    assert found.classes == fit_calibration(frame, A100, resamples=1).classes


def test_bytes_that_are_no_text_are_a_bad_cell(tmp_path):
    text = streams().to_csv(index=False).encode()
    (tmp_path / "t.csv").write_bytes(text.replace(b"65536", b"655\xff36", 1))
    said = refused(tmp_path / "t.csv")
    assert "t.csv: column 'bytes'" in said
    assert "row 0" in said


def test_good_streams_give_their_parameters():
    found = fit_calibration(streams(), A100, resamples=1).lookup("norm", "bf16").parameters
    assert found["memory_efficiency"].value == pytest.approx(0.85, rel=0.01)
    assert found["overhead_s"].value == pytest.approx(3e-6, rel=0.01)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (lambda: streams(1e3), "are the times in seconds?"),
        (lambda: streams(1e6), "are the times in seconds?"),
        (lambda: streams(1e3, high=20), "are the times in seconds?"),
        (lambda: streams(0.1), "datasheet bandwidth"),
        (lambda: streams(1e-3, high=24), "too fast for a cache"),
        (lambda: gemms(rows=(1, 2, 4, 8, 12, 16), faster=5), "datasheet bandwidth"),
        (lambda: gemms(faster=1e-3), "are the times in seconds?"),
        (lambda: gemms(faster=1e3), "above the datasheet peak"),
        (lambda: attention().assign(time_s=lambda f: f["time_s"] * 1e3), "in seconds?"),
    ],
)
def test_the_wrong_unit_shows_at_one_of_the_roofs(table, words):
    assert words in refused(table())


def test_operands_in_the_cache_may_beat_the_memory():
    # 2 to 32 MB at twice the memory's bandwidth, 64 MB and more below it.
    frame = streams(low=18)
    frame.loc[frame["bytes"] <= 2**25, "time_s"] = 1e-6 + frame["bytes"] / (2 * BANDWIDTH)
    assert not any("left out" in w for w in fit_calibration(frame, A100, resamples=1).warnings)


def test_tiny_launches_are_no_wrong_unit():
    found = fit_calibration(streams(low=8, high=13), A100, resamples=1)
    assert found.lookup("norm", "bf16").parameters["overhead_s"].value == pytest.approx(3e-6, 0.02)


@pytest.mark.parametrize("seconds", [6.0, 6e-3, 6e-9])
@pytest.mark.parametrize("name", ["module_kernel", "launch"])
def test_host_rows_no_host_takes(seconds, name):
    said = refused(hosts([seconds, seconds, 6e-6], name))
    assert "2 of 3 values of 'time_s'" in said
    assert name in said


@pytest.mark.parametrize("seconds", ["x", -1.0, np.nan])
def test_host_rows_are_numbers(seconds):
    assert "time_s" in refused(hosts([6e-6, seconds, 6e-6]))


def test_host_rows_in_seconds():
    found = fit_calibration(hosts([6.1e-6, 6e-6, 5.9e-6]), A100, resamples=1)
    assert found.host_s_per_kernel == 6e-6


@pytest.mark.parametrize("every", [2, 3, 7, 15])
@pytest.mark.parametrize("table", [gemms, streams, attention])
@pytest.mark.parametrize("factor", [1e3, 1e6])
def test_two_units_in_one_table(every, table, factor):
    frame = table()
    frame.loc[::every, "time_s"] *= factor
    said = refused(frame)
    assert "in bf16" in said
    assert "held-out error" in said


def interrupted(factor):
    """Products on a busy machine, each up to `factor` times slower, and a good class beside them."""
    frame = gemms(op_class="gemm", rows=np.arange(16, 1040, 64))
    frame["time_s"] *= factor ** np.random.default_rng(1).random(len(frame))
    return pd.concat([frame, streams()])


def test_a_class_that_predicts_badly_is_kept_out_and_the_file_says_so(tmp_path):
    found = fit_calibration(interrupted(10), A100, resamples=1)
    assert not found.lookup("gemm", "bf16").measured
    assert found.lookup("norm", "bf16").measured
    found.save(tmp_path / "c.json")
    (remark,) = [w for w in Calibration.load(tmp_path / "c.json").warnings if "kept out" in w]
    assert remark.startswith("gemm in bf16: kept out, its held-out error is ")
    assert "nothing else running" in remark


def test_an_error_above_a_hundred_percent_stops_everything():
    said = refused(interrupted(100))
    assert said.startswith("gemm in bf16: ")
    assert "cannot be fitted, its held-out error is " in said
    assert "nothing else running" in said
