"""Sequential and spatial sampling: positions, grids, and what has none."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware_specs.errors import InvalidInputError
from token_reduction.m3 import m3
from token_reduction.sampling import random, sequential, spatial, strided_indices


def test_sequential_is_the_first(draw) -> None:
    x = draw(2, 576, 4)
    out = sequential(x, 40)
    assert torch.equal(out.tokens, x[:, :40])
    assert out.kept_indices.shape == (2, 40)
    assert sequential(x, 0.1).tokens.shape == (2, 58, 4)  # 57.6


# The grids of the paper's table: rows and columns floor((i + 0.5) * 24 / r), written out.
LINES = {
    4: [3, 9, 15, 21],
    5: [2, 7, 12, 16, 21],
    6: [2, 6, 10, 14, 18, 22],
    7: [1, 5, 8, 12, 15, 18, 22],
    8: [1, 4, 7, 10, 13, 16, 19, 22],
}


@pytest.mark.parametrize("grid", [(6, 6), (5, 8), (8, 5), (5, 7), (7, 5), (4, 4)])
def test_spatial_grids(draw, grid) -> None:
    x = draw(576, 3)
    wanted = [row * 24 + column for row in LINES[grid[0]] for column in LINES[grid[1]]]
    out = spatial(x, grid=grid)
    assert out.kept_indices.tolist() == wanted
    assert torch.equal(out.tokens, x[wanted])


@pytest.mark.parametrize(
    ("keep", "grid"), [(36, (6, 6)), (40, (5, 8)), (35, (5, 7)), (23, (1, 23))]
)
def test_a_count_takes_the_squarest_grid(draw, keep, grid) -> None:
    x = draw(576, 3)
    assert torch.equal(spatial(x, keep).tokens, spatial(x, grid=grid).tokens)


def test_a_count_without_a_grid_names_the_nearest(draw) -> None:
    with pytest.raises(InvalidInputError, match="28 and 30"):
        spatial(draw(576, 3), 29)


def test_other_shapes(draw) -> None:
    x = draw(2, 12, 3)
    assert spatial(x, 2, shape=(3, 4)).kept_indices.tolist() == [[5, 7], [5, 7]]
    with pytest.raises(InvalidInputError, match="square"):
        spatial(x, 2)
    with pytest.raises(InvalidInputError, match="3 x 5"):
        spatial(x, 2, shape=(3, 5))
    with pytest.raises(InvalidInputError, match="fit"):
        spatial(x, grid=(4, 4), shape=(3, 4))


def test_spatial_takes_keep_or_grid(draw) -> None:
    for arguments in ({}, {"keep": 4, "grid": (2, 2)}, {"grid": (2, 2), "variant": "strided"}):
        with pytest.raises(InvalidInputError, match="grid"):
            spatial(draw(16, 3), **arguments)


def test_strided_is_hireds(draw) -> None:
    assert strided_indices(576, 64) == list(range(0, 575, 9))
    # 576 // 40 = 14: one more than asked for, as in the program.
    assert spatial(draw(576, 2), 40, variant="strided").tokens.shape == (42, 2)
    assert strided_indices(1, 1) == [0]


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 12), columns=st.integers(1, 12), side=st.integers(12, 30))
def test_a_grid_is_distinct_ascending_and_centred(rows, columns, side) -> None:
    x = torch.zeros(side * side, 1)
    kept = spatial(x, grid=(rows, columns)).kept_indices
    assert kept.tolist() == sorted(set(kept.tolist()))
    assert len(kept) == rows * columns
    lines = kept // side
    # Mirrored, the grid is within one patch of itself: nothing leans to a side.
    assert abs(int(lines[0] + lines[-1]) - (side - 1)) <= 1


@pytest.mark.parametrize("keep", [1, 2, 5, 576])
def test_identity_at_full_length(draw, keep) -> None:
    x = draw(576, 3)
    assert sequential(x, keep).tokens.shape == (keep, 3)
    assert torch.equal(spatial(x, 1.0).tokens, x)
    assert torch.equal(sequential(x, 1.0).tokens, x)
    torch.testing.assert_close(m3(x, 1.0).tokens, x)


def test_random_picks_are_spread_and_repeatable(draw) -> None:
    x = draw(2, 576, 4)
    out = random(x, 64)
    kept = out.kept_indices[0].tolist()
    assert kept == sorted(set(kept))
    assert len(kept) == 64
    assert torch.equal(out.tokens[1], x[1, kept])
    assert torch.equal(random(x, 64).kept_indices, out.kept_indices)
    assert not torch.equal(random(x, 64, seed=1).kept_indices, out.kept_indices)
    # Every token is as likely as any other: 400 draws of 1 of 4.
    drawn = [int(random(draw(4, 1), 1, seed=seed).kept_indices) for seed in range(400)]
    assert all(70 < drawn.count(token) < 130 for token in range(4))
