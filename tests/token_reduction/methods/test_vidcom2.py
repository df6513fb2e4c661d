"""VidCom2 against a slow float64 reading of it, and its edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hardware_specs.errors import InvalidInputError
from token_reduction.vidcom2 import vidcom2

WIDTHS = (1 / 8, 1 / 4, 1 / 2, 1, 2)


def reference(clip, keep: float) -> list[int]:
    x = np.asarray(clip, dtype=np.float64)
    frames, each, width = x.shape
    spread = x.reshape(-1, width).var(axis=0)
    channels = sorted(range(width), key=lambda c: (spread[c], c))[: width // 2]
    x = x[:, :, channels]
    x = x / np.linalg.norm(x, axis=-1, keepdims=True)
    whole = x.reshape(-1, x.shape[-1]).mean(axis=0)

    def near(v, c):
        return sum(math.exp(-float((v - c) @ (v - c)) / (2 * a)) for a in WIDTHS)

    to_clip = [[near(x[t, p], whole) for p in range(each)] for t in range(frames)]
    score = [
        [to_clip[t][p] + near(x[t, p], x[t].mean(axis=0)) for p in range(each)]
        for t in range(frames)
    ]
    mean = [-sum(row) / each for row in to_clip]
    weights = [math.exp((m - max(mean)) / 0.01) for m in mean]
    weights = [w / sum(weights) for w in weights]
    share = [min(1.0, keep * (1 + w - sum(weights) / frames)) for w in weights]
    chosen, others = [], []
    for t in range(frames):
        quota = min(max(round(share[t] * each), 1), each)
        order = sorted(range(each), key=lambda p: score[t][p])
        chosen += [(score[t][p], t * each + p) for p in order[:quota]]
        others += [(score[t][p], t * each + p) for p in order[quota:]]
    target = max(frames, int(frames * each * keep))
    chosen, others = sorted(chosen), sorted(others)
    picked = chosen[:target] + others[: max(0, target - len(chosen))]
    return sorted(i for _, i in picked)


@pytest.mark.parametrize(("frames", "each", "keep"), [(8, 25, 0.25), (4, 16, 0.6), (6, 9, 0.12)])
def test_equals_the_slow_reference(draw, frames, each, keep) -> None:
    clip = draw(frames, each, 24, seed=frames).double()
    out = vidcom2(clip, keep)
    assert out.kept_indices.tolist() == reference(clip, keep)
    assert torch.equal(out.tokens, clip.reshape(-1, 24)[out.kept_indices])


def test_an_unusual_frame_keeps_more(draw) -> None:
    """All frames are one picture but the fourth."""
    clip = draw(1, 16, 32).repeat(8, 1, 1) + 0.01 * draw(8, 16, 32, seed=1)
    clip[3] = draw(16, 32, seed=2)
    kept = vidcom2(clip, 0.25).kept_indices // 16
    counts = torch.bincount(kept, minlength=8).tolist()
    assert counts[3] == max(counts)
    assert sum(counts) == 32


@given(st.integers(1, 6), st.integers(1, 9), st.floats(0.05, 1.0))
def test_the_count_is_known_beforehand(frames, each, keep) -> None:
    total = frames * each
    if int(keep * total) < 1:
        return
    clip = torch.randn(frames, each, 6, generator=torch.Generator().manual_seed(each))
    assert len(vidcom2(clip, keep).tokens) == max(frames, int(keep * total))


def test_equal_tokens_and_one_channel() -> None:
    assert len(vidcom2(torch.ones(4, 9, 8), 0.25).tokens) == 9
    assert len(vidcom2(torch.ones(4, 9, 1), 0.25).tokens) == 9
    assert len(vidcom2(torch.zeros(4, 9, 2), 0.25).tokens) == 9


@pytest.mark.parametrize("shape", [(4, 8), (0, 4, 8), (2, 0, 8)])
def test_no_clip(shape) -> None:
    with pytest.raises(InvalidInputError, match=r"frames \[t, p, d\]"):
        vidcom2(torch.zeros(*shape))
