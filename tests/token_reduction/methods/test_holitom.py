"""HoliTom against a slow float64 reading of it, the order of its merge, and its edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hardware_specs.errors import InvalidInputError
from token_reduction import holitom as module
from token_reduction.holitom import holitom, merge_in_turn


def cosine(a, b) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def centres_of(x: np.ndarray, count: int, own: float) -> tuple[list[int], np.ndarray]:
    """Density peaks, and what joins them, token by token."""
    n, d = x.shape
    apart = np.array([[np.linalg.norm(a - b) / np.sqrt(d) for b in x] for a in x])
    density = [np.exp(-np.mean(np.sort(row)[: min(7, count, n)] ** 2)) for row in apart]
    gap = [
        min((apart[i, j] for j in range(n) if density[j] > density[i]), default=apart.max())
        for i in range(n)
    ]
    chosen = sorted(np.argsort(-np.array(gap) * density, kind="stable")[:count].tolist())
    joined = {c: [] for c in chosen}
    for i in range(n):
        if i not in joined:
            joined[min(chosen, key=lambda c: apart[i, c])].append(x[i])
    rows = [own * x[c] + (1 - own) * np.mean(m, axis=0) if m else x[c] for c, m in joined.items()]
    return chosen, np.array(rows)


def still_in(x, first, last, threshold):
    """Positions that stand still through a scene."""
    return [
        p for p in range(x.shape[1])
        if all(cosine(x[t, p], x[t + 1, p]) > threshold for t in range(first, last))
    ]  # fmt: skip


def all_cuts(frames):
    """Every way to cut a clip into scenes."""
    for pattern in range(2 ** (frames - 1)):
        ends = [t for t in range(frames - 1) if pattern >> t & 1] + [frames - 1]
        yield list(zip([0, *(end + 1 for end in ends[:-1])], ends, strict=True))


def saved_by(x, scenes, threshold):
    return sum(len(still_in(x, a, b, threshold)) * (b - a) for a, b in scenes)


def reference(clip, attention, keep, threshold, own, scenes):
    x, a = np.asarray(clip, np.float64), np.asarray(attention, np.float64)
    count, each, _ = x.shape
    saved = saved_by(x, scenes, threshold)
    share = min(keep / ((count * each - saved) / (count * each)), 1.0)
    out = {}
    for first, last in scenes:
        still = still_in(x, first, last, threshold) if first < last else []
        moving = [p for p in range(each) if p not in still]
        for t in range(first, last + 1):
            best = sorted(moving, key=lambda p: -a[t, p])[: math.ceil(len(moving) * share)]
            out |= {(t, p): x[t, p] for p in best}
        number = max(round(len(still) * share), len(still) == each)
        if still and number:
            chosen, rows = centres_of(x[first : last + 1, still].mean(axis=0), number, own)
            out |= {(first, still[c]): row for c, row in zip(chosen, rows, strict=True)}
    places = sorted(out)
    return [t * each + p for t, p in places], np.array([out[place] for place in places])


def moving_clip(draw, frames, each, width, changes):
    """Positions that stand still but for a little noise, other positions, and cuts of everything."""
    clip = draw(frames, each, width, seed=frames)
    base = draw(each, width, seed=5)
    for t in range(frames):
        if t in changes:
            base = draw(each, width, seed=50 + t)
        clip[t, : each // 2] = base[: each // 2] + 0.05 * clip[t, : each // 2]
    return clip


@pytest.mark.parametrize(
    ("frames", "each", "keep", "threshold", "own", "changes"),
    [
        (6, 12, 0.3, 0.8, 0.6, {3}),
        (7, 18, 0.2, 0.8, 0.0, {2, 5}),
        (5, 9, 0.5, 0.5, 1.0, set()),
        (4, 8, 0.9, 0.9, 0.6, {1}),
        (5, 8, 0.4, 1.0, 0.6, set()),  # nothing stands still
        (4, 6, 0.3, -1.0, 0.6, set()),  # everything does
    ],
)
def test_equals_the_slow_reference(draw, frames, each, keep, threshold, own, changes) -> None:
    clip = moving_clip(draw, frames, each, 5, changes)
    looked = draw(frames, each, seed=3).softmax(dim=-1)
    broken = module._last_break(clip, clip.norm(dim=-1, keepdim=True), threshold)
    found, saved = module._scenes(module._still_counts(broken))
    x = clip.double().numpy()
    scenes = [(first, last) for first, last, _ in found]
    assert [len(still_in(x, *scene, threshold)) for scene in scenes if scene[0] < scene[1]] == [
        still for first, last, still in found if first < last
    ]
    assert saved == max(saved_by(x, cuts, threshold) for cuts in all_cuts(frames))
    out = holitom(clip, looked, keep, threshold=threshold, own=own)
    kept, tokens = reference(clip, looked, keep, threshold, own, scenes)
    assert out.kept_indices.tolist() == kept
    np.testing.assert_allclose(out.tokens, tokens, rtol=1e-4, atol=1e-5)


def test_the_published_setting(draw) -> None:
    """32 frames of 196 at 0.15: 30 of each frame where nothing stands still, else about as many."""
    looked = draw(32, 196, seed=2)
    assert len(holitom(draw(32, 196, 4), looked, threshold=1.0).tokens) == 960
    still = holitom(moving_clip(draw, 32, 196, 4, {9, 20}), looked)
    assert 0.14 * 6272 < len(still.tokens) < 0.18 * 6272


def in_turn(states, row, keep):
    """The program's own loop, in float64."""
    x, a = states.double().numpy().copy(), row.double().numpy().mean(axis=0)
    kept = np.argsort(-a, kind="stable")[: round(keep * len(x))]
    gone = [i for i in range(len(x)) if i not in kept]
    nearest = [max(kept, key=lambda k: cosine(x[i], x[k])) for i in gone]
    for i, k in zip(gone, nearest, strict=True):
        x[k] = (x[k] + x[i]) / 2
    return sorted(kept.tolist()), x[sorted(kept)]


@pytest.mark.parametrize("keep", [0.5, 0.1, 0.9, 1.0])
def test_tokens_are_merged_in_turn(draw, keep) -> None:
    states, row = draw(2, 30, 6), draw(2, 3, 30, seed=1).softmax(dim=-1)
    out = merge_in_turn(states, row, keep)
    for b in range(2):
        kept, tokens = in_turn(states[b], row[b], keep)
        assert out.kept_indices[b].tolist() == kept
        np.testing.assert_allclose(out.tokens[b], tokens, rtol=1e-4, atol=1e-6)


def test_the_order_matters(draw) -> None:
    """What goes last counts half, whatever went before it."""
    states, row = draw(1, 40, 4), torch.zeros(1, 1, 40)
    row[..., 0] = 1
    out = merge_in_turn(states, row, 1).tokens
    torch.testing.assert_close(out[0, 0], states[0, 1:] .flip(0).T @ 2.0 ** -torch.arange(1, 40.0)
                               + states[0, 0] * 2.0**-39)  # fmt: skip


def test_what_does_not_fit(draw) -> None:
    clip, looked = draw(4, 9, 5), draw(4, 9)
    with pytest.raises(InvalidInputError, match="the attention"):
        holitom(clip, looked[:3])
    with pytest.raises(InvalidInputError, match="frames \\[t, p, d\\]"):
        holitom(clip[:0], looked[:0])
    with pytest.raises(InvalidInputError, match="attention \\[\\.\\.\\., h, n\\]"):
        merge_in_turn(clip, looked)
    for keep in (1, 2, 1.5, 0.0, True):
        with pytest.raises(InvalidInputError, match="keep"):
            holitom(clip, looked, keep)


def test_a_scene_that_stands_still_keeps_a_token() -> None:
    clip = torch.ones(2, 4, 3)
    assert len(holitom(clip, torch.ones(2, 4), 0.05).tokens) == 1


def test_one_frame_keeps_what_is_looked_at_most(draw) -> None:
    looked = draw(1, 9)
    kept = holitom(draw(1, 9, 5), looked, 0.3).kept_indices
    assert kept.tolist() == sorted(looked[0].topk(3).indices.tolist())
