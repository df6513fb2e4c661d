"""HiPrune against a slow reading of it, and its edges."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware_specs.errors import InvalidInputError
from token_reduction.hiprune import hiprune


def reference(shallow, deep, count: int, side: int, alpha: float) -> list[int]:
    n = len(shallow)
    anchors = sorted(range(n), key=lambda i: (-shallow[i], i))[: round(count * alpha / 5)]
    chosen = set()
    for anchor in anchors:
        for step in (0, -1, 1, -side, side):
            chosen.add(min(max(anchor + step, 0), n - 1))
    rest = sorted((i for i in range(n) if i not in chosen), key=lambda i: (-deep[i], i))
    return sorted([*chosen, *rest[: count - len(chosen)]])


def drawn(n, seed):
    made = torch.Generator().manual_seed(seed)
    tokens = torch.randn(n, 5, generator=made)
    shallow, deep = torch.rand(2, n, generator=made, dtype=torch.float64)
    return tokens, shallow, deep


@pytest.mark.parametrize(
    ("side", "count", "alpha"),
    [(24, 192, 0.1), (24, 64, 0.1), (24, 128, 0.5), (6, 9, 0.6), (6, 3, 0.1)],
)
def test_equals_the_slow_reference(side, count, alpha) -> None:
    tokens, shallow, deep = drawn(side * side, seed=count)
    out = hiprune(tokens, shallow, deep, count, side=side, alpha=alpha)
    wanted = reference(shallow.tolist(), deep.tolist(), count, side, alpha)
    assert out.kept_indices.tolist() == wanted
    assert torch.equal(out.tokens, tokens[wanted])


def test_neighbours_are_clamped_to_the_image_and_wrap_at_its_rows() -> None:
    tokens, _, deep = drawn(16, seed=0)
    shallow = torch.zeros(16, dtype=torch.float64)
    shallow[0] = 1.0
    kept = hiprune(tokens, shallow, deep, 5, side=4, alpha=1.0).kept_indices.tolist()
    assert {0, 1, 4} <= set(kept)  # -1 and -4 are clamped to 0
    shallow[0], shallow[8] = (
        0.0,
        1.0,
    )  # first of a row: its left neighbour is 7, the end of the one above
    kept = hiprune(tokens, shallow, deep, 5, side=4, alpha=1.0).kept_indices.tolist()
    assert kept == [4, 7, 8, 9, 12]


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 9), st.floats(0.02, 1.0), st.floats(0, 0.9))
def test_the_count_does_not_depend_on_the_data(side, share, alpha) -> None:
    n = side * side
    count = max(1, int(share * n))
    tokens, shallow, deep = drawn(n, seed=side)
    kept = hiprune(tokens, shallow, deep, count, side=side, alpha=alpha).kept_indices.tolist()
    assert len(set(kept)) == count
    batch = hiprune(
        tokens.expand(2, -1, -1), shallow.expand(2, -1), deep.expand(2, -1), count,
        side=side, alpha=alpha,
    )  # fmt: skip
    assert batch.kept_indices[1].tolist() == kept


def test_shapes() -> None:
    tokens, shallow, deep = drawn(16, seed=0)
    with pytest.raises(InvalidInputError, match="hiprune takes"):
        hiprune(tokens, shallow[:15], deep, 4, side=4)
