"""EViT against a slow float64 reading of the method, and its conserved attention."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware_specs.errors import InvalidInputError
from token_reduction.evit import evit


def inputs(n: int, *, batch: int = 1, heads: int = 3, d: int = 5, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, n + 1, d, generator=generator)
    return x, torch.randn(batch, heads, n + 1, generator=generator).softmax(dim=-1)


def reference(x, a, keep: float, *, fuse: bool = True):
    x, a = np.asarray(x, np.float64), np.asarray(a, np.float64)
    n = len(x) - 1
    mean = [sum(a[h, j + 1] for h in range(len(a))) / len(a) for j in range(n)]
    left = math.ceil(keep * n)
    kept = sorted(range(n), key=lambda j: -mean[j])[:left]
    out = [x[0]] + [x[j + 1] for j in kept]
    if fuse:
        out.append(sum(mean[j] * x[j + 1] for j in range(n) if j not in kept))
    return kept, np.array(out)


@pytest.mark.parametrize("keep", [0.7, 0.5, 0.011])
@pytest.mark.parametrize("fuse", [True, False])
def test_equals_the_slow_reference(keep, fuse) -> None:
    x, a = inputs(100)
    kept, tokens = reference(x[0], a[0], keep, fuse=fuse)
    out = evit(x, a, keep, fuse=fuse)
    assert out.kept_indices[0].tolist() == [0] + [j + 1 for j in kept]
    np.testing.assert_allclose(out.tokens[0], tokens, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("keep", [1.0, 20, 0.96])
def test_keeping_all_leaves_the_tokens_alone(keep) -> None:
    x, a = inputs(20)
    out = evit(x, a, keep, trace=True)
    assert torch.equal(out.tokens, x)
    assert out.sources[0].tolist() == list(range(21))


def test_sources_say_where_each_token_went() -> None:
    x, a = inputs(10)
    out = evit(x, a, 3, trace=True)
    for place, index in enumerate(out.kept_indices[0].tolist()):
        assert out.sources[0, index] == place
    assert out.sources[0].tolist().count(4) == 7
    dropped = evit(x, a, 3, fuse=False, trace=True)
    assert dropped.sources[0].tolist().count(-1) == 7


def test_leading_dimensions_are_free() -> None:
    x, a = inputs(30, batch=6)
    out = evit(x.unflatten(0, (2, 3)), a.unflatten(0, (2, 3)), 0.5)
    assert torch.equal(out.tokens.flatten(0, 1), evit(x, a, 0.5).tokens)


def test_a_fused_token_counts_as_a_patch_at_the_next_stage() -> None:
    x, a = inputs(50)
    lengths = []
    for _ in range(3):
        x = evit(x, a, 0.7).tokens
        lengths.append(x.shape[1] - 1)
        a = inputs(x.shape[1] - 1)[1]
    assert lengths == [36, 27, 20]  # ceil(0.7 x 50) + 1, ceil(0.7 x 36) + 1, ceil(0.7 x 27) + 1


@pytest.mark.parametrize("n", [729, 2880])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_lengths_and_precisions(n, dtype) -> None:
    x, a = (t.to(dtype) for t in inputs(n))
    out = evit(x, a, 0.7)
    assert out.tokens.shape == (1, math.ceil(0.7 * n) + 2, 5)
    assert out.tokens.dtype == dtype


def test_shapes_that_do_not_fit() -> None:
    x, a = inputs(10)
    for tokens, attention in ((x[:, 1:], a), (x, a[:, 0]), (x[:, :1], a[..., :1])):
        with pytest.raises(InvalidInputError, match="class token"):
            evit(tokens, attention, 3)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 60), keep=st.floats(0.01, 1.0))
def test_the_attention_mass_is_constant(seed, n, keep) -> None:
    x, a = inputs(n, seed=seed)
    ones = torch.ones_like(x[..., :1])
    out = evit(ones, a, keep)
    whole = float(a.mean(dim=1)[0, 1:].sum())
    kept = out.cls_attention[0, out.kept_indices[0, 1:] - 1].sum()
    # With tokens of 1 the fused token is the attention of what was pruned.
    pruned = out.tokens[0, -1, 0] if out.tokens.shape[1] == len(out.kept_indices[0]) + 1 else 0.0
    assert float(kept + pruned) == pytest.approx(whole, rel=1e-4)
