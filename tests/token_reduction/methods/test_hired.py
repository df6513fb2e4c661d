"""HiRED against a slow reading: budgets, tiles, variants."""

from __future__ import annotations

import math

import pytest
import torch

from hardware_specs.errors import InvalidInputError
from token_reduction.hired import hired


def rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).softmax(dim=-1)


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
    ]
    for arguments, options, message in cases:
        with pytest.raises(InvalidInputError, match=message):
            hired(*arguments, **options)
