"""V2Drop against a slow float64 reading of it, and its edges."""

from __future__ import annotations

import math

import pytest
import torch

from costmodel.methods import get_method
from hardware_specs.errors import InvalidInputError
from token_reduction.v2drop import v2drop


def reference(now, then, keep) -> list[int]:
    n = len(now)
    change = [math.dist(now[i].tolist(), then[i].tolist()) for i in range(n)]
    count = max(1, int(n * keep)) if isinstance(keep, float) else min(keep, n)
    return sorted(sorted(range(n), key=lambda i: (-change[i], i))[:count])


@pytest.mark.parametrize(
    ("n", "keep", "left"),
    [(576, 0.5, 288), (577, 0.5, 288), (144, 0.0, 1), (9, 4, 4), (3, 4, 3), (1, 0.0, 1)],
)
def test_equals_the_slow_reference(draw, n, keep, left) -> None:
    now, then = draw(n, 16, seed=1).double(), draw(n, 16, seed=2).double()
    out = v2drop(now, then, keep)
    assert out.kept_indices.tolist() == reference(now, then, keep)
    assert len(out.tokens) == left
    assert torch.equal(out.tokens, now[out.kept_indices])


def test_nothing_changed_keeps_the_first(draw) -> None:
    x = draw(8, 4)
    assert v2drop(x, x, 0.25).kept_indices.tolist() == [0, 1]


def test_rows_of_a_batch_are_alone(draw) -> None:
    now, then = draw(3, 20, 4), draw(3, 20, 4, seed=1)
    out = v2drop(now, then, 0.3)
    for i in range(3):
        assert torch.equal(out.kept_indices[i], v2drop(now[i], then[i], 0.3).kept_indices)


def test_shapes(draw) -> None:
    with pytest.raises(InvalidInputError, match="v2drop takes"):
        v2drop(draw(4, 3), draw(5, 3), 0.5)


@pytest.mark.parametrize("shares", [(0.5, 1.5), (), "half"])
def test_shares_that_are_none(shares) -> None:
    with pytest.raises(InvalidInputError, match=r"shares in \[0, 1\]"):
        get_method("v2drop", shares=shares)
