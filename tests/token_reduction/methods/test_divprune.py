"""DivPrune against a slow float64 reading of the method, and its properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware_specs.errors import InvalidInputError
from token_reduction.divprune import _pick_on_device, cosine_distance, divprune, farthest_points


def reference(tokens, k: int) -> list[int]:
    """float64; the minimum over all picks is taken anew for each candidate and step."""
    v = [np.asarray(t, dtype=np.float64) for t in tokens]
    n = len(v)

    def distance(i: int, j: int) -> float:
        return 1 - float(v[i] @ v[j]) / math.sqrt(float(v[i] @ v[i]) * float(v[j] @ v[j]))

    table = [[distance(i, j) for j in range(n)] for i in range(n)]
    nearest = [sorted(table[i][j] for i in range(n))[1] for j in range(n)]
    picks = [max(range(n), key=nearest.__getitem__)]
    while len(picks) < k:
        rest = [j for j in range(n) if j not in picks]
        picks.append(max(rest, key=lambda j: min(table[i][j] for i in picks)))
    return picks


@pytest.mark.parametrize(("n", "keep"), [(96, 0.098), (96, 30), (40, 1.0), (5, 1), (2, 2)])
def test_equals_the_slow_reference(draw, n, keep) -> None:
    tokens = draw(n, 24, seed=n)
    k = keep if isinstance(keep, int) else round(keep * n)
    out = divprune(tokens, keep)
    assert out.selection_order.tolist() == reference(tokens, k)
    assert out.kept_indices.tolist() == sorted(out.selection_order.tolist())
    assert torch.equal(out.tokens, tokens[out.kept_indices])


def test_the_default_is_the_programs(draw) -> None:
    assert divprune(draw(576, 8)).tokens.shape == (56, 8)  # round(0.098 * 576)
    assert divprune(draw(625, 8), 0.0984).tokens.shape == (62, 8)  # 61.5 to even


def test_leading_dimensions_are_free(draw) -> None:
    tokens = draw(2, 3, 50, 8)
    out = divprune(tokens, 7)
    assert out.tokens.shape == (2, 3, 7, 8)
    for i in range(2):
        for j in range(3):
            assert torch.equal(out.selection_order[i, j], divprune(tokens[i, j], 7).selection_order)


def test_the_loop_for_accelerators_picks_the_same(draw) -> None:
    distance = cosine_distance(draw(4, 60, 8))
    on_cpu = farthest_points(distance.clone(), 20)
    distance.diagonal(dim1=-2, dim2=-1).fill_(-math.inf)
    assert torch.equal(_pick_on_device(distance, on_cpu[:, 0], 20), on_cpu)


@pytest.mark.parametrize("n", [729, 2880])
def test_other_token_counts(draw, n) -> None:
    out = divprune(draw(n, 8), 0.098)
    kept = out.kept_indices.tolist()
    assert len(set(kept)) == round(0.098 * n)


def test_duplicates_come_last_and_never_twice(draw) -> None:
    distinct = draw(10, 8)
    tokens = distinct.repeat(3, 1)
    order = divprune(tokens, 30).selection_order.tolist()
    assert sorted(order) == list(range(30))
    assert {i % 10 for i in order[:10]} == set(range(10))


def test_equal_tokens_do_not_fail() -> None:
    assert sorted(divprune(torch.ones(6, 3), 6).selection_order.tolist()) == list(range(6))


def test_a_token_of_zeros_is_at_distance_one() -> None:
    tokens = torch.eye(3)
    tokens[1] = 0
    torch.testing.assert_close(cosine_distance(tokens), 1 - torch.diag(torch.tensor([1.0, 0, 1])))
    assert len(set(divprune(tokens, 3).kept_indices.tolist())) == 3


@pytest.mark.parametrize("bad", [0, 41, 1.01, 0.0, True])
def test_keep_out_of_range(draw, bad) -> None:
    with pytest.raises(InvalidInputError, match="keep"):
        divprune(draw(40, 4), bad)


def test_not_a_token_list() -> None:
    with pytest.raises(InvalidInputError, match="tokens"):
        divprune(torch.ones(4))
    with pytest.raises(InvalidInputError, match="tokens"):
        divprune(torch.ones(0, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(draw, dtype) -> None:
    tokens = draw(576, 64).to(dtype)
    out = divprune(tokens)
    assert out.tokens.dtype == dtype
    assert len(set(out.kept_indices.tolist())) == 56
    wide = divprune(tokens, compute_dtype=torch.float32)
    assert torch.equal(wide.kept_indices, divprune(tokens.float()).kept_indices)
    assert torch.equal(wide.tokens, tokens[wide.kept_indices])


def test_a_norm_beyond_half_precision_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="infinity"):
        divprune(torch.full((40, 4096), 6e4, dtype=torch.float16), 4)


def test_the_distances_carry_no_gradient_but_the_tokens_do(draw) -> None:
    tokens = draw(40, 8).requires_grad_()
    divprune(tokens, 4).tokens.sum().backward()
    assert int((tokens.grad != 0).any(dim=-1).sum()) == 4


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(3, 80))
def test_the_closest_pair_never_moves_apart(seed, n) -> None:
    tokens = torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)).double()
    order = divprune(tokens, n).selection_order
    table = cosine_distance(tokens[order])
    closest = [float(table[i, :i].min()) for i in range(1, n)]
    running = np.minimum.accumulate(closest)
    # What a pick adds is at most as far away as what the pick before it was.
    np.testing.assert_allclose(running[1:], closest[1:], atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(3, 80))
def test_scaling_tokens_changes_no_pick(seed, n) -> None:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(n, 6, generator=generator)
    # Powers of two, so that the scaling itself rounds nothing.
    factors = 2.0 ** torch.randint(-8, 9, (n, 1), generator=generator)
    k = max(n // 2, 1)
    assert torch.equal(
        divprune(tokens, k).selection_order, divprune(tokens * factors, k).selection_order
    )
