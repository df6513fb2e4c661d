"""The GEMM law: limits, bounds, stairs, scalars and arrays alike."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.calibration import Calibration
from costmodel.calibration.dtypes import LABELS
from costmodel.calibration.gemm import CHUNK, FAMILIES, TileLaw, gemm_time_s
from costmodel.calibration.law import StreamLaw, combine
from costmodel.calibration.parameters import Device
from costmodel.calibration.stairs import Stairs

PEAK, BANDWIDTH = 312e12, 2.039e12
DEVICE = Device({"bf16": PEAK}, 19.5e12, BANDWIDTH, 108, 40 * 2**20)
IDEAL = {
    "compute_efficiency": 1.0,
    "memory_efficiency": 1.0,
    "overhead_s": 0.0,
    "exponent": math.inf,
    "cache_bandwidth_ratio": math.inf,
    "tail_overlap": 1.0,
    "epilogue_cost": 0.0,
    "split_overhead_s": math.inf,
    "small_tile_loss": 0.0,
}
REAL = {
    "compute_efficiency": 0.85, "memory_efficiency": 0.8, "overhead_s": 3e-6, "exponent": 3.0,
    "cache_bandwidth_ratio": 4.0, "tail_overlap": 0.1, "epilogue_cost": 0.6, "split_overhead_s": 3e-6,
    "small_tile_loss": 0.1,
}  # fmt: skip

sizes = st.integers(min_value=1, max_value=20000)


def time_of(values, m, n, k, family="library", dtype="bf16", batch=1, device=DEVICE):
    arrays = np.broadcast_arrays(*(np.atleast_1d(np.asarray(v, float)) for v in (m, n, k, batch)))
    return gemm_time_s(TileLaw(values, device, family, dtype, PEAK), *arrays)


def roof(m, n, k):
    """max(F / P, B / BW) with every operand moved once at two bytes."""
    return np.maximum(2.0 * m * n * k / PEAK, 2.0 * (m * k + n * k + m * n) / BANDWIDTH)


def test_power_sum_runs_from_addition_to_maximum():
    assert combine(3.0, 4.0, 1.0) == 7.0
    assert combine(3.0, 4.0, 2.0) == pytest.approx(5.0)
    assert combine(3.0, 4.0, math.inf) == 4.0
    assert combine(0.0, 0.0, 2.4) == 0.0
    # Microseconds to a high power stay representable.
    assert combine(1e-6, 1e-6, 150.0) == pytest.approx(1e-6 * 2 ** (1 / 150))


@given(a=st.floats(1e-9, 1.0), b=st.floats(1e-9, 1.0), p=st.floats(1.0, 500.0))
def test_power_sum_lies_between_maximum_and_sum(a, b, p):
    assert max(a, b) * (1 - 1e-12) <= combine(a, b, p) <= (a + b) * (1 + 1e-12)


def test_ideal_parameters_give_the_roofline_on_whole_tiles():
    # 108 tiles of 256 x 128 are one whole wave: 6 x 18 tiles.
    m, n, k = 6 * 256, 18 * 128, 4096
    assert time_of(IDEAL, m, n, k)[0] == pytest.approx(roof(m, n, k), rel=1e-9)


def test_smooth_family_is_the_smooth_law():
    m, n, k = 577, 4096, 1024
    math_s = 2.0 * m * n * k / (REAL["compute_efficiency"] * PEAK)
    memory_s = 2.0 * (m * k + n * k + m * n) / (REAL["memory_efficiency"] * BANDWIDTH)
    expected = REAL["overhead_s"] + combine(math_s, memory_s, REAL["exponent"])
    assert time_of(REAL, m, n, k, family="smooth")[0] == pytest.approx(expected, rel=1e-12)


@given(m=sizes, n=sizes, k=sizes, family=st.sampled_from(sorted(FAMILIES)))
@settings(max_examples=150, deadline=None)
def test_no_parameters_beat_the_roofline(m, n, k, family):
    assert time_of(REAL, m, n, k, family)[0] >= roof(m, n, k)
    assert time_of(IDEAL, m, n, k, family)[0] >= roof(m, n, k) * (1 - 1e-12)


@given(m=sizes, n=sizes, k=sizes)
@settings(max_examples=100, deadline=None)
def test_worse_parameters_never_make_it_faster(m, n, k):
    base = time_of(REAL, m, n, k)[0]
    for name, worse in (
        ("compute_efficiency", 0.5), ("memory_efficiency", 0.5), ("overhead_s", 6e-6),
        ("exponent", 1.5), ("cache_bandwidth_ratio", 2.0), ("tail_overlap", 0.0),
        ("epilogue_cost", 2.0), ("split_overhead_s", 9e-6), ("small_tile_loss", 0.3),
    ):  # fmt: skip
        assert time_of({**REAL, name: worse}, m, n, k)[0] >= base * (1 - 1e-12), name


@given(m=sizes, n=sizes, k=sizes, dtype=st.sampled_from(sorted(LABELS)))
@settings(max_examples=60, deadline=None)
def test_time_grows_with_the_inner_dimension_and_the_batch(m, n, k, dtype):
    one = time_of(REAL, m, n, k, dtype=dtype)[0]
    assert (
        time_of(REAL, m, n, 2 * k + 512, dtype=dtype, family="smooth")[0]
        >= (time_of(REAL, m, n, k, dtype=dtype, family="smooth")[0])
    )
    assert time_of(REAL, m, n, k, dtype=dtype, batch=3)[0] >= one * (1 - 1e-12)
    assert np.isfinite(one)
    assert one > REAL["overhead_s"]


def test_stairs_are_flat_and_step_where_a_wave_ends():
    # k = n = 4096 on 108 SMs: a row of 256 x 128 tiles is 32, so three rows fit one wave (96) and
    # a fourth does not (128): flat from 600 to 768 rows, a step at 769.
    values = {**REAL, "tail_overlap": 0.0, "small_tile_loss": 0.5}
    times = time_of(values, [640, 700, 768, 769, 1000], 4096, 4096)
    assert times[2] / times[0] < 1.02
    assert times[3] / times[2] > 1.3
    # With the last wave's idle time hidden, the same edge is a slope.
    hidden = time_of({**values, "tail_overlap": 1.0}, [768, 769], 4096, 4096)
    assert hidden[1] / hidden[0] < 1.05


def test_kernels_dispatched_by_rows_step_at_tile_heights():
    times = time_of(REAL, [33, 64, 65, 128, 129, 256], 4096, 4096, family="by-rows")
    assert times[1] == pytest.approx(times[0], rel=0.03)
    assert times[2] > 1.05 * times[1]
    assert times[4] > 1.05 * times[3]


def test_ragged_rows_cost_their_factor_above_256_rows():
    values = {**REAL, "ragged_cost": 1.5, "exponent": math.inf}
    aligned, ragged = time_of(values, [4096, 4095], 8192, 8192)
    assert (ragged - 3e-6) / (aligned - 3e-6) == pytest.approx(1.5, rel=1e-6)
    small = time_of(values, [255], 8192, 8192)[0]
    assert small == time_of(REAL | {"exponent": math.inf}, [255], 8192, 8192)[0]


def test_quantising_activations_adds_rows_and_passes():
    extra = {**REAL, "row_overhead_s": 2e-9, "quantise_cost": 1.5}
    m, k = 1000, 4096
    added = time_of(extra, m, 4096, k)[0] - time_of(REAL, m, 4096, k)[0]
    # 1000 rows x 2 ns, and 1.5 passes over 3 bytes x 1000 x 4096 at the datasheet's bandwidth.
    assert added == pytest.approx(1000 * 2e-9 + 1.5 * 3 * m * k / BANDWIDTH, rel=1e-9)


def test_nothing_takes_no_time():
    assert time_of(REAL, [0, 5, 5], [5, 0, 5], [5, 5, 0]).tolist() == [0.0, 0.0, 0.0]


def test_chunks_do_not_show():
    rng = np.random.default_rng(0)
    m, n, k = (rng.integers(1, 9000, CHUNK + 77).astype(float) for _ in range(3))
    whole = time_of(REAL, m, n, k)
    assert whole[:50].tolist() == time_of(REAL, m[:50], n[:50], k[:50]).tolist()
    assert whole[-50:].tolist() == time_of(REAL, m[-50:], n[-50:], k[-50:]).tolist()


@given(m=sizes, n=st.sampled_from([1024, 4096, 11008]), k=st.sampled_from([1024, 4096]))
@settings(max_examples=60, deadline=None)
def test_scalars_and_arrays_agree(m, n, k):
    a100 = Calibration.load("nvidia-a100-sxm4-80gb")
    scalar = a100.op_time_s("gemm", dtype="bf16", m=m, n=n, k=k)
    array = a100.op_time_s("gemm", dtype="bf16", m=np.array([[m]]), n=n, k=[k])
    assert isinstance(scalar, float)
    assert array.shape == (1, 1)
    assert array[0, 0] == pytest.approx(scalar, rel=1e-12)


@given(
    rows=st.lists(st.integers(1, 30000), min_size=1, max_size=12),
    n=sizes,
    k=sizes,
    family=st.sampled_from(sorted(name for name, family in FAMILIES.items() if family.tiles)),
    dtype=st.sampled_from(sorted(LABELS)),
    quantising=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_a_table_over_rows_is_the_same_law(rows, n, k, family, dtype, quantising):
    extra = {"row_overhead_s": 2e-9, "quantise_cost": 1.5, "ragged_cost": 1.3} if quantising else {}
    values = REAL | extra
    # A split's partial sums grow with every row; the table is asked in any order.
    array = time_of(values, rows, n, k, family, dtype)
    table = Stairs(TileLaw(values, DEVICE, family, dtype, PEAK), n, k)
    assert [table.time_s(m) for m in rows] == pytest.approx(array.tolist(), rel=1e-12)
    assert table.time_s(np.array(rows, dtype=float)) == pytest.approx(array, rel=1e-12)
    assert table.time_s(0) == 0.0
    assert table.time_s(np.array([0.0, rows[0]]))[0] == 0.0


def test_a_table_over_rows_stays_small():
    table = Stairs(TileLaw(REAL, DEVICE, "library", "bf16", PEAK), 4096, 4096)
    most = table.time_s(np.array([1.0, 1e15]))
    assert most == pytest.approx(time_of(REAL, [1, 1e15], 4096, 4096), rel=1e-12)
    assert table.time_s(1e15) == pytest.approx(float(most[1]), rel=1e-12)
    assert len(table._coarse) < 1000


def test_stream_moves_small_tensors_at_cache_speed():
    values = {
        "compute_efficiency": 1.0,
        "memory_efficiency": 0.8,
        "overhead_s": 0.0,
        "exponent": math.inf,
        "l2_bandwidth_ratio": 2.0,
    }
    half = DEVICE.l2_bytes / 2
    assert StreamLaw.of(values, DEVICE).time_s(half, 0.0) == pytest.approx(half / (2 * BANDWIDTH))
    # Beyond half the cache every further byte moves at 0.8 of the bandwidth.
    assert StreamLaw.of(values, DEVICE).time_s(half + 1e9, 0.0) == pytest.approx(
        half / (2 * BANDWIDTH) + 1e9 / (0.8 * BANDWIDTH)
    )
    # 1e12 FLOP at 19.5e12 FLOP/s outweigh a megabyte.
    assert StreamLaw.of(values, DEVICE).time_s(1e6, 1e12) == pytest.approx(1e12 / 19.5e12)
