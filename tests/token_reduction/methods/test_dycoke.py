"""DyCoke's first stage against a slow float64 reading of it, and its edges."""

from __future__ import annotations

import math

import pytest
import torch

from costmodel.methods.dycoke import compared_frames
from hardware_specs.errors import InvalidInputError
from token_reduction.dycoke import dycoke


def reference(clip, keep: float) -> list[int]:
    x = clip.double()
    frames, each, _ = x.shape
    count = int(keep * each) if isinstance(keep, float) else keep
    pairs = [(i, i + 1) for i in range(0, frames - 1, 2)]
    pairs += [(i, i + 2) for i in range(0, frames - 4, 4)]
    kept = {(t, p) for t in range(frames) for p in range(each)}
    for one, other in pairs:
        cosine = [
            float(x[one, p] @ x[other, p])
            / math.sqrt(float(x[one, p] @ x[one, p]) * float(x[other, p] @ x[other, p]))
            for p in range(each)
        ]
        gone = sorted(range(each), key=lambda p: (cosine[p], p))[count:]
        kept -= {(other, p) for p in gone}
    return sorted(t * each + p for t, p in kept)


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 6, 8, 9, 16])
@pytest.mark.parametrize("keep", [0.3, 0.5, 2])
def test_equals_the_slow_reference(draw, frames, keep) -> None:
    clip = draw(frames, 9, 6, seed=frames)
    out = dycoke(clip, keep)
    assert out.kept_indices.tolist() == reference(clip, keep)
    assert torch.equal(out.tokens, clip.reshape(-1, 6)[out.kept_indices])


def test_the_published_setting(draw) -> None:
    """23 of 32 frames keep int(0.3 x 196) = 58 tokens; frame 30, three from the end, stays whole."""
    kept = dycoke(draw(32, 196, 4), 0.3).kept_indices
    counts = torch.bincount(kept // 196, minlength=32).tolist()
    assert sum(counts) == 9 * 196 + 23 * 58 == 3098
    assert [t for t, count in enumerate(counts) if count == 196] == [
        0,
        4,
        8,
        12,
        16,
        20,
        24,
        28,
        30,
    ]
    assert compared_frames(32) == 23


def test_the_last_of_an_odd_number_of_frames_stays(draw) -> None:
    counts = torch.bincount(dycoke(draw(5, 10, 4), 0.3).kept_indices // 10, minlength=5).tolist()
    assert counts == [10, 3, 3, 3, 10]


@pytest.mark.parametrize("shape", [(4, 8), (0, 4, 8), (2, 0, 8)])
def test_no_clip(shape) -> None:
    with pytest.raises(InvalidInputError, match=r"frames \[t, p, d\]"):
        dycoke(torch.zeros(*shape))


def test_too_few(draw) -> None:
    with pytest.raises(InvalidInputError, match="rounds to none"):
        dycoke(draw(3, 4, 5), 0.1)
