"""EVS against a slow float64 reading of it, and its edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hardware_specs.errors import InvalidInputError
from token_reduction.evs import evs


def reference(clip, keep: float) -> list[int]:
    x = np.asarray(clip, dtype=np.float64)
    frames, each, _ = x.shape
    scores = []
    for t in range(frames):
        for p in range(each):
            if t == 0:
                scores.append(255.0)
                continue
            a, b = x[t, p], x[t - 1, p]
            scores.append(1 - float(a @ b) / math.sqrt(float(a @ a) * float(b @ b)))
    count = max(each, int(frames * each * keep))
    best = sorted(range(frames * each), key=lambda i: (-scores[i], i))
    return sorted(best[:count])


@pytest.mark.parametrize(("frames", "each", "keep"), [(8, 25, 0.3), (2, 16, 0.9), (5, 4, 0.21)])
def test_equals_the_slow_reference(draw, frames, each, keep) -> None:
    clip = draw(frames, each, 12, seed=frames)
    out = evs(clip, keep)
    assert out.kept_indices.tolist() == reference(clip, keep)
    assert torch.equal(out.tokens, clip.reshape(-1, 12)[out.kept_indices])


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_of_three_frames_at_the_default_one_is_left(draw, frames) -> None:
    """int(3 x 16 x 0.3) = 14 is less than a frame's 16, which stay: the first frame's own."""
    out = evs(draw(frames, 16, 8))
    assert out.kept_indices.tolist() == list(range(16))


def test_a_standing_picture_is_one_frame(draw) -> None:
    """Nothing moves: equal scores, so the earliest tokens stay."""
    frame = torch.ones(16, 8)
    out = evs(frame.expand(10, 16, 8), 0.3)
    assert out.kept_indices.tolist() == list(range(48))


def test_what_moved_stays(draw) -> None:
    clip = draw(1, 16, 8).repeat(6, 1, 1)
    clip[4, 5] = -clip[4, 5]  # turns away, and back
    kept = evs(clip, 18).kept_indices.tolist()
    assert kept == [*range(16), 4 * 16 + 5, 5 * 16 + 5]


@given(st.integers(1, 6), st.integers(1, 9), st.floats(0.05, 1.0))
def test_the_count_is_known_beforehand(frames, each, keep) -> None:
    total = frames * each
    if int(keep * total) < 1:
        return
    clip = torch.randn(frames, each, 4, generator=torch.Generator().manual_seed(each))
    assert len(evs(clip, keep).tokens) == max(each, int(keep * total))


def test_half_precision_and_scale(draw) -> None:
    clip = draw(6, 9, 16)
    for scale in (1e-3, 1e3):
        assert torch.equal(evs(clip * scale).kept_indices, evs(clip).kept_indices)
    assert len(evs(clip.half(), 20).tokens) == 20


@pytest.mark.parametrize("shape", [(4, 8), (0, 4, 8), (2, 0, 8)])
def test_no_clip(shape) -> None:
    with pytest.raises(InvalidInputError, match=r"frames \[t, p, d\]"):
        evs(torch.zeros(*shape))
