"""ToMe against a slow float64 reading of the method, and its conservation laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.methods.tome import merges_for_keep, parse_r
from hardware_specs.errors import InvalidInputError
from token_reduction.tome import (
    bipartite_matching,
    merge_sources,
    proportional_bias,
    tome,
)


def reference(x, metric, r: int, size=None, class_token: bool = True):
    x, metric = np.asarray(x, np.float64), np.asarray(metric, np.float64)
    t = len(x)
    size = np.ones(t) if size is None else np.asarray(size, np.float64).reshape(-1)
    even, odd = list(range(0, t, 2)), list(range(1, t, 2))
    r = min(r, (t - class_token) // 2)
    if r == 0:
        return x, size, [[i] for i in range(t)]
    best = []
    for a in even:
        if class_token and a == 0:
            best.append((-math.inf, odd[0]))
            continue
        cosine = [
            metric[a] @ metric[b] / np.linalg.norm(metric[a]) / np.linalg.norm(metric[b])
            for b in odd
        ]
        place = int(np.argmax(cosine))
        best.append((cosine[place], odd[place]))
    ranked = sorted(range(len(even)), key=lambda i: -best[i][0])
    goes = ranked[:r]
    stays = sorted(ranked[r:]) if class_token else ranked[r:]
    groups = [[even[i]] for i in stays] + [
        [b, *[even[i] for i in goes if best[i][1] == b]] for b in odd
    ]
    sizes = [sum(size[i] for i in group) for group in groups]
    out = [sum(size[i] * x[i] for i in g) / s for g, s in zip(groups, sizes, strict=True)]
    return np.array(out), np.array(sizes), groups


@pytest.mark.parametrize(
    ("t", "r"), [(21, 4), (20, 4), (65, 13), (65, 100), (9, 0), (1, 1), (2, 1)]
)
@pytest.mark.parametrize("class_token", [True, False])
def test_equals_the_slow_reference(draw, t, r, class_token) -> None:
    x, metric = draw(t, 6, seed=t), draw(t, 8, seed=t + 1)
    size = torch.randint(1, 5, (t, 1), generator=torch.Generator().manual_seed(t)).float()
    out = tome(x, metric, r, size=size, class_token=class_token, trace=True)
    wanted, sizes, groups = reference(x, metric, r, size, class_token)
    np.testing.assert_allclose(out.tokens, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(out.sizes.flatten(), sizes)
    sources = out.sources.tolist()
    assert all(sources[i] == place for place, group in enumerate(groups) for i in group)


def test_the_class_token_stays_first(draw) -> None:
    x = draw(2, 65, 4)
    metric = draw(2, 65, 4)
    assert torch.equal(tome(x, metric, 20).tokens[:, 0], x[:, 0])


def test_leading_dimensions_are_free(draw) -> None:
    x, metric = draw(2, 3, 33, 4), draw(2, 3, 33, 8, seed=1)
    out = tome(x, metric, 5)
    assert torch.equal(out.tokens[1, 2], tome(x[1, 2], metric[1, 2], 5).tokens)


@pytest.mark.parametrize("n", [730, 2881])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_lengths_and_precisions(draw, n, dtype) -> None:
    out = tome(draw(n, 4).to(dtype), draw(n, 8, seed=1).to(dtype), 23)
    assert out.tokens.shape == (n - 23, 4)
    assert out.tokens.dtype == dtype


def test_bad_arguments(draw) -> None:
    with pytest.raises(InvalidInputError, match="negative"):
        tome(draw(9, 4), draw(9, 4), -1)
    with pytest.raises(InvalidInputError, match="metric"):
        tome(draw(9, 4), draw(8, 4), 1)


@pytest.mark.parametrize(
    ("arguments", "schedule"),
    [
        ((4, 13), [13, 13, 13, 13]),
        # From 16 to 0 in steps of -16/11, truncated.
        ((12, 8, -1.0), [16, 14, 13, 11, 10, 8, 7, 5, 4, 2, 1, 0]),
        ((12, 8, 1.0), [0, 1, 2, 4, 5, 7, 8, 10, 11, 13, 14, 16]),
        ((5, 8, 0.5), [4, 6, 8, 10, 12]),
        ((1, 8, -1.0), [16]),
        ((4, [3, 1]), [3, 1, 0, 0]),
    ],
)
def test_schedules(arguments, schedule) -> None:
    assert parse_r(*arguments) == schedule


@pytest.mark.parametrize(
    "arguments", [(2, -1), (2, 8, 1.5), (2, [1, 2, 3]), (2, [-1]), (2, [1], 0.5)]
)
def test_bad_schedules(arguments) -> None:
    with pytest.raises(InvalidInputError):
        parse_r(*arguments)


@settings(max_examples=60, deadline=None)
@given(patches=st.integers(1, 3000), layers=st.integers(1, 24), share=st.floats(0.001, 1.0))
def test_merges_for_a_token_count_reach_it(patches, layers, share) -> None:
    keep = max(round(share * patches), 1)
    halved = patches
    for _ in range(layers):
        halved -= halved // 2
    if keep < halved:
        with pytest.raises(InvalidInputError, match="larger keep"):
            merges_for_keep("tome", keep, patches, layers)
        return
    merges = merges_for_keep("tome", keep, patches, layers)
    left = patches
    for merged in merges:
        assert merged <= left // 2  # what bipartite_matching can do beside a class token
        left -= merged
    assert left == keep


def test_proportional_attention_is_log_size() -> None:
    size = torch.tensor([1.0, 2.0, 4.0]).reshape(1, 3, 1)
    bias = proportional_bias(size)
    assert bias.shape == (1, 1, 1, 3)
    # exp(logit + log s) counts a token as often as the patches it stands for.
    weights = (torch.zeros(1, 1, 1, 3) + bias).softmax(dim=-1).flatten()
    torch.testing.assert_close(weights, torch.tensor([1.0, 2.0, 4.0]) / 7)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    t=st.integers(2, 60),
    r=st.integers(0, 40),
    class_token=st.booleans(),
    layers=st.integers(1, 3),
)
def test_sizes_and_weighted_sums_are_preserved(seed, t, r, class_token, layers) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(t, 3, generator=generator).double()
    tokens, size = x, torch.ones(t, 1).double()
    for _ in range(layers):
        metric = torch.randn(len(tokens), 5, generator=generator).double()
        out = tome(tokens, metric, r, size=size, class_token=class_token)
        tokens, size = out.tokens, out.sizes
    assert float(size.sum()) == t
    torch.testing.assert_close((size * tokens).sum(dim=0), x.sum(dim=0))


def test_sources_of_a_matching_without_class_token(draw) -> None:
    matching = bipartite_matching(draw(8, 4), 2, class_token=False)
    assert torch.bincount(merge_sources(matching, 8), minlength=6).sum() == 8
