"""VisPruner against a slow float64 reading, and what it shares with FasterVLM."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware_specs.errors import InvalidInputError
from token_reduction.fastervlm import fastervlm
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


@pytest.mark.parametrize(
    ("n", "keep", "important"),
    [(80, 20, 0.5), (80, 21, 0.75), (80, 5, 0.0), (80, 80, 0.5), (9, 4, 1.0)],
)
def test_vispruner_equals_the_slow_reference(draw, n, keep, important) -> None:
    x, a = draw(n, 6, seed=n), rows(3, n, seed=1)
    out = vispruner(x, a, keep, important=important)
    assert out.kept_indices.tolist() == slow_vispruner(x, a, keep, important)


def test_vispruner_keeps_projected_tokens_by_clip_features(draw) -> None:
    features, projected, a = draw(2, 40, 6), draw(2, 40, 9, seed=1), rows(2, 3, 40)
    out = vispruner(projected, a, 10, features=features)
    same = vispruner(features, a, 10)
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
        kept = out.kept_indices.tolist()
        assert kept == sorted(set(kept))
        assert len(kept) == keep
