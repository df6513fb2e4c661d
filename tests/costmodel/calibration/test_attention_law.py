"""The attention law: pairs, blocks, bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.calibration.attention import FAMILIES, attention_pairs, attention_time_s
from costmodel.calibration.parameters import Device
from costmodel.ops.attention import attended_pairs, masked_share

PEAK = 1e15
DEVICE = Device({"bf16": PEAK}, None, 3e12, 100, 0.0)
VALUES = {
    "compute_efficiency": 0.6,
    "memory_efficiency": 0.7,
    "overhead_s": 5e-6,
    "exponent": 2.0,
    "tail_overlap": 0.1,
    "block_overhead_s": 1e-6,
    "score_cost": 12.0,
}


def time_of(family, batch, q, t, heads, kv_heads, e, causal, values=VALUES):
    arrays = (np.asarray(v, float) for v in (batch, q, t, heads, kv_heads, e, causal))
    return float(attention_time_s(values, DEVICE, family, 2.0, PEAK, *arrays))


@given(q=st.integers(1, 60), extra=st.integers(0, 60))
def test_causal_pairs_equal_a_counted_mask(q, extra):
    t = q + extra
    mask = np.tril(np.ones((q, t), bool), k=t - q)
    assert attention_pairs(q, t, True) == mask.sum()
    assert attention_pairs(q, t, False) == q * t


@given(
    family=st.sampled_from(sorted(FAMILIES)),
    batch=st.integers(1, 16),
    q=st.integers(1, 4000),
    extra=st.integers(0, 1000),
    heads=st.integers(1, 40),
    e=st.sampled_from([64, 72, 80, 128]),
    causal=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_attention_never_beats_its_roofline(family, batch, q, extra, heads, e, causal):
    t = q + extra
    flops = 4 * batch * heads * e * attention_pairs(q, t, causal)
    moved = 4 * batch * heads * e * (q + t)
    ideal = max(flops / PEAK, moved / 3e12)
    assert time_of(family, batch, q, t, heads, heads, e, causal) >= ideal


def test_split_keys_family_is_the_smooth_law_by_hand():
    # One query of 32 heads x 128 over 1000 keys: 4 x 32 x (128 + 12) x 1000 FLOP at 0.6e15, and
    # 2 x 2 x 128 x (32 + 1000 x 8) bytes at 0.7 x 3e12.
    flops_s = 4 * 32 * 140 * 1000 / 0.6e15
    bytes_s = 2 * 2 * 128 * (32 + 8000) / 2.1e12
    expected = 5e-6 + math.hypot(flops_s, bytes_s)
    assert time_of("split-keys", 1, 1, 1000, 32, 8, 128, False) == pytest.approx(expected)


def test_blocks_take_whole_waves():
    # 100 SMs: 4 heads x 25 blocks of 128 queries fill one wave; one block more starts another.
    values = {**VALUES, "tail_overlap": 0.0}
    full = time_of("flash-128", 1, 25 * 128, 3200, 4, 4, 64, False, values)
    more = time_of("flash-128", 1, 25 * 128 + 1, 3200, 4, 4, 64, False, values)
    assert more > 1.6 * full


def test_causal_is_cheaper_and_fewer_kv_heads_are_no_dearer():
    full = time_of("flash-128", 4, 2048, 2048, 32, 32, 128, False)
    assert time_of("flash-128", 4, 2048, 2048, 32, 32, 128, True) < 0.7 * full
    assert time_of("flash-128", 4, 2048, 2048, 32, 8, 128, False) <= full


def test_empty_batch_takes_no_time():
    assert time_of("flash-128", 0, 10, 10, 4, 4, 64, False) == 0.0


def windowed(family, q, window, values=VALUES):
    pairs = attended_pairs(q, q, True, window)
    return time_of(family, 8, q, q, 32, 8, 128, masked_share(q, q, pairs), values)


def test_blocks_under_a_window_see_its_keys_and_their_own():
    """A window of w keys costs blocks of 128 queries what w + 127 keys cost without a mask."""
    bare = {**VALUES, "tail_overlap": 1.0, "memory_efficiency": 1.0, "exponent": 300.0}
    for window in (256, 1024, 4096):
        whole = time_of("flash-128", 8, 1 << 20, window + 127, 32, 8, 128, False, bare)
        assert windowed("flash-128", 1 << 20, window, bare) == pytest.approx(whole, rel=0.01)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_wider_window_is_never_cheaper_and_ends_at_causal_attention(family):
    times = [windowed(family, 2048, window) for window in (1, 64, 512, 1024, 2000, 2048, 4096)]
    assert times == sorted(times)
    assert times[-1] == times[-2] == time_of(family, 8, 2048, 2048, 32, 8, 128, True)
    assert times[0] < 0.5 * times[-1]


def test_each_sequence_s_head_costs_decoding_a_start():
    more = {**VALUES, "sequence_overhead_s": 2e-6}
    short = (256, 1, 64, 32, 8, 128, True)
    extra = time_of("split-keys", *short, more) - time_of("split-keys", *short)
    assert extra == pytest.approx(256 * 8 * 2e-6 / DEVICE.units)
