"""VScan against a slow float64 reading of it, and its edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from costmodel.methods.vscan import split_budget, window_side
from hardware_specs.errors import InvalidInputError
from token_reduction.vscan import vscan


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


def reference(x, shallow, deep, count: int, side: int) -> tuple[list[int], np.ndarray]:
    """Window by window, then patch by patch."""
    x = np.asarray(x, np.float64)
    local, late = (np.asarray(row, np.float64).mean(axis=0) for row in (shallow, deep))
    window = max(size for size in range(1, 7) if side % size == 0)
    across = side // window
    chosen: set[int] = set()
    for top in range(across):
        for left in range(across):
            inside = [
                (top * window + y) * side + left * window + z
                for y in range(window)
                for z in range(window)
            ]
            inside.sort(key=lambda place: (-local[place], place))
            chosen |= set(inside[: count // 2 // across**2])
    late[sorted(chosen)] = 0
    rest = sorted(set(range(len(x))) - chosen, key=lambda place: (-late[place], place))
    kept = sorted(chosen | set(rest[: count - count // 2]))
    groups = {place: [x[place]] for place in kept}
    for place in range(len(x)):
        if place not in groups:
            groups[max(kept, key=lambda one: cosine(x[place], x[one]))].append(x[place])
    return kept, np.array([np.mean(groups[place], axis=0) for place in kept])


@pytest.mark.parametrize(("side", "count"), [(24, 96), (12, 20), (6, 9), (7, 13), (4, 16)])
def test_equals_the_slow_reference(draw, side, count) -> None:
    n = side * side
    x = draw(n, 12, seed=side)
    rows = [draw(2, n, seed=seed).softmax(dim=-1) for seed in (1, 2)]
    out = vscan(x, *rows, count, side=side)
    kept, means = reference(x, *rows, count, side)
    assert out.kept_indices.tolist() == kept
    np.testing.assert_allclose(out.tokens, means, rtol=1e-4, atol=1e-5)
    assert int(out.sizes.sum()) == n
    assert torch.bincount(out.sources, minlength=len(kept)).tolist() == out.sizes[:, 0].tolist()


def test_windows_and_budgets() -> None:
    """96 of 24 x 24: three of each of 16 windows, and 48 of the whole; 100 gives two places away."""
    assert (window_side(24), split_budget(96, 24)) == (6, (3, 48))
    each, others = split_budget(100, 24)
    assert 16 * each + others == 98


def test_every_window_gives_as_many(draw) -> None:
    shallow, deep = (draw(1, 576, seed=seed).softmax(dim=-1) for seed in (3, 4))
    picks = vscan(draw(576, 8), shallow, deep, 96, side=24).selection_order[:48]
    windows = torch.div(picks, 24 * 6, rounding_mode="floor") * 4 + picks % 24 // 6
    assert torch.bincount(windows, minlength=16).tolist() == [3] * 16


def test_crops_are_reduced_one_by_one(draw) -> None:
    x, rows = draw(2, 36, 8), [draw(2, 3, 36, seed=seed).softmax(dim=-1) for seed in (1, 2)]
    both = vscan(x, *rows, 10, side=6)
    for i in range(2):
        alone = vscan(x[i], *(row[i] for row in rows), 10, side=6)
        assert torch.equal(both.kept_indices[i], alone.kept_indices)
        torch.testing.assert_close(both.tokens[i], alone.tokens)


def test_what_does_not_fit(draw) -> None:
    x, row = draw(36, 8), draw(2, 36).softmax(dim=-1)
    with pytest.raises(InvalidInputError, match="5 x 5"):
        vscan(x, row, row, 9, side=5)
    with pytest.raises(InvalidInputError, match="class token's attention"):
        vscan(x, row[:, 1:], row, 9, side=6)
