"""FasterVLM, VisPruner, HiRED and PyramidDrop against slow float64 readings of the methods."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware_specs.errors import InvalidInputError
from token_reduction.fastervlm import fastervlm
from token_reduction.hired import hired
from token_reduction.pyramiddrop import pyramiddrop, tokens_per_stage
from token_reduction.vispruner import vispruner


def rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).softmax(dim=-1)


def slow_vispruner(x, a, keep: int, important: float) -> list[int]:
    x, a = np.asarray(x, np.float64), np.asarray(a, np.float64)
    mean = a.mean(axis=0)
    order = sorted(range(len(x)), key=lambda j: -mean[j])
    first = int(keep * important)
    left = order[first:]
    while len(left) > keep - first > 0:
        even, odd = left[::2], left[1::2]
        removed = min(8, len(left) - (keep - first), len(even))

        def likeness(i: int, odd: list[int] = odd) -> float:
            return max(
                float(x[i] @ x[j]) / math.sqrt(float(x[i] @ x[i]) * float(x[j] @ x[j])) for j in odd
            )

        left = sorted(even, key=lambda i: -likeness(i))[removed:] + odd
    return sorted(order[:first] + (left if keep > first else []))


def test_fastervlm_is_a_top_k_in_spatial_order(draw) -> None:
    x, a = draw(2, 60, 4), rows(2, 3, 60)
    out = fastervlm(x, a, 0.25)
    for i in range(2):
        mean = a[i].double().mean(dim=0).tolist()
        best = sorted(range(60), key=lambda j: -mean[j])[:15]
        assert out.kept_indices is not None
        assert out.kept_indices[i].tolist() == sorted(best)
        assert torch.equal(out.tokens[i], x[i, sorted(best)])


@pytest.mark.parametrize(
    ("n", "keep", "important"),
    [(80, 20, 0.5), (80, 21, 0.75), (80, 5, 0.0), (80, 80, 0.5), (9, 4, 1.0)],
)
def test_vispruner_equals_the_slow_reference(draw, n, keep, important) -> None:
    x, a = draw(n, 6, seed=n), rows(3, n, seed=1)
    out = vispruner(x, a, keep, important=important)
    assert out.kept_indices is not None
    assert out.kept_indices.tolist() == slow_vispruner(x, a, keep, important)


def test_vispruner_keeps_projected_tokens_by_clip_features(draw) -> None:
    features, projected, a = draw(2, 40, 6), draw(2, 40, 9, seed=1), rows(2, 3, 40)
    out = vispruner(projected, a, 10, features=features)
    same = vispruner(features, a, 10)
    assert out.kept_indices is not None
    assert same.kept_indices is not None
    assert torch.equal(out.kept_indices, same.kept_indices)
    assert out.tokens.shape == (2, 10, 9)


@pytest.mark.parametrize("function", [fastervlm, vispruner])
def test_rows_that_do_not_belong(draw, function) -> None:
    with pytest.raises(InvalidInputError, match="class token"):
        function(draw(40, 4), rows(3, 41), 5)
    with pytest.raises(InvalidInputError, match="class token"):
        function(draw(40, 4), rows(40), 5)


@pytest.mark.parametrize("n", [729, 2880])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("function", [fastervlm, vispruner])
def test_lengths_and_precisions(draw, n, dtype, function) -> None:
    keep = n - 40 if function is vispruner else 64
    out = function(draw(n, 4).to(dtype), rows(2, n).to(dtype), keep)
    assert out.tokens.shape == (keep, 4)
    assert out.tokens.dtype == dtype


def slow_hired(early, late, keep: float, grid, alpha: float, *, paper: bool) -> list[list[int]]:
    early, late = early.double().sum(dim=1).tolist(), late.double().sum(dim=1).tolist()
    tiles, n = len(late), len(late[0])
    parts = grid[0] * grid[1]
    budget = int(tiles * n * keep)
    whole = min(int(budget * alpha), n)
    weight = [0.0] * parts
    side = math.isqrt(n)
    if paper:
        for j, value in enumerate(early[0]):
            row, column = divmod(j, side)
            weight[row * grid[0] // side * grid[1] + column * grid[1] // side] += value
    else:
        best = sorted(range(n), key=lambda j: -early[0][j])[: int(n * (1 - alpha))]
        for j in best:
            weight[j // (n // parts)] += 1
    counts = [whole] + [min(int(w / sum(weight) * (budget - whole)), n) for w in weight]
    return [sorted(sorted(range(n), key=lambda j: -late[t][j])[: counts[t]]) for t in range(tiles)]


@pytest.mark.parametrize("variant", ["program", "paper"])
@pytest.mark.parametrize(
    ("grid", "keep", "alpha"), [((2, 2), 0.2, 0.5), ((1, 3), 0.1, 0.25), ((3, 1), 0.4, 0.6)]
)
def test_hired_equals_the_slow_reference(variant, grid, keep, alpha) -> None:
    tiles = grid[0] * grid[1] + 1
    early, late = rows(tiles, 4, 144, seed=1), rows(tiles, 4, 144, seed=2)
    out = hired(early, late, keep, grid=grid, alpha=alpha, variant=variant)
    wanted = slow_hired(early, late, keep, grid, alpha, paper=variant == "paper")
    assert [tile.kept_indices.tolist() for tile in out] == wanted


def test_hired_never_spends_more_than_its_budget() -> None:
    early, late = rows(5, 2, 144, seed=3), rows(5, 2, 144, seed=4)
    for keep in (1, 10, 300, 0.99):
        budget = keep if isinstance(keep, int) else int(5 * 144 * keep)
        out = hired(early, late, keep, grid=(2, 2))
        assert sum(len(tile.kept_indices) for tile in out) <= budget


def test_hired_refuses_what_does_not_fit() -> None:
    attention = rows(5, 2, 144)
    cases = [
        ((attention, attention), {"grid": (2, 3)}, "tiles"),
        ((attention, attention[:4]), {"grid": (2, 2)}, "tiles"),
        ((attention, attention), {"grid": (2, 2), "alpha": 1.5}, "alpha"),
        ((attention, attention, 721), {"grid": (2, 2)}, "720"),
        ((rows(6, 2, 144), rows(6, 2, 144)), {"grid": (1, 5)}, "paper"),
        ((attention * float("nan"), attention), {"grid": (2, 2)}, "NaN"),
    ]
    for arguments, options, message in cases:
        with pytest.raises(InvalidInputError, match=message):
            hired(*arguments, **options)


def test_pyramiddrop_equals_the_slow_reference(draw) -> None:
    query, keys = draw(4, 8, seed=1), draw(4, 50, 8, seed=2)
    score = np.zeros(50)
    for head in range(4):
        logits = np.array([float(query[head].double() @ k) for k in keys[head].double()])
        weights = np.exp(logits / math.sqrt(8))
        score += weights / weights.sum() / 4
    best = sorted(range(5, 38), key=lambda j: -score[j])[:16]  # int(33 * 0.5)
    out = pyramiddrop(query, keys, start=5, image_tokens=33)
    assert out.kept_indices.tolist() == sorted([*range(5), *best, *range(38, 50)])


def test_pyramiddrop_on_batches_and_bad_shapes(draw) -> None:
    query, keys = draw(3, 4, 8, seed=1), draw(3, 4, 50, 8, seed=2)
    out = pyramiddrop(query, keys, start=torch.tensor([5, 0, 9]), image_tokens=30)
    assert out.kept_indices.shape == (3, 35)
    with pytest.raises(InvalidInputError, match="query"):
        pyramiddrop(query[:, :2], keys, start=5, image_tokens=30)
    with pytest.raises(InvalidInputError, match="ratio"):
        tokens_per_stage(288, 576)
    assert tokens_per_stage(0.3, 576) == [576, 172, 51, 15]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 60),
    share=st.floats(0.01, 1.0),
    important=st.floats(0.0, 1.0),
)
def test_as_many_as_asked_for_and_none_twice(seed, n, share, important) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator)
    a = torch.rand(2, n, generator=generator)
    keep = max(round(n * share), 1)
    for out in (vispruner(x, a, keep, important=important), fastervlm(x, a, keep)):
        assert out.kept_indices is not None
        kept = out.kept_indices.tolist()
        assert kept == sorted(set(kept))
        assert len(kept) == keep
