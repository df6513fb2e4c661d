"""CrossGET against a slow float64 reading of the method, and its conservation laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware_specs.errors import InvalidInputError
from token_reduction.crossget import complete_graph_matching, crossget, token_importance


def inputs(t: int, *, batch: int = 1, c: int = 8, d: int = 4, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, t, d, generator=generator)
    metric = torch.randn(batch, t, c, generator=generator)
    attention = torch.randn(batch, t, t, generator=generator).softmax(dim=-1)
    return x, metric, attention


def reference(x, metric, attention, r: int, size, first_of_pairs: set[int]):
    """float64. Mutual nearest neighbours tie; `first_of_pairs` says which of each comes first."""
    x, metric, attention = (np.asarray(v, np.float64) for v in (x, metric, attention))
    t = len(x)
    inner = range(1, t - 1)
    cosine = {
        (i, j): metric[i] @ metric[j] / np.linalg.norm(metric[i]) / np.linalg.norm(metric[j])
        for i in inner
        for j in inner
        if i != j
    }
    best = {i: max(cosine[min(i, j), max(i, j)] for j in inner if j != i) for i in inner}
    ranked = sorted(inner, key=lambda i: (-best[i], i not in first_of_pairs))
    worth = {}
    importance = [
        sum(attention[i, j] for i in range(t - 1)) / (t - 1) + attention[t - 1, j] for j in range(t)
    ]
    for place, i in enumerate(ranked):
        behind = [cosine[i, j] for j in ranked[place + 1 :]]
        worth[i] = importance[i] - max(behind) if behind else math.inf
    src = sorted(inner, key=lambda i: worth[i])[: min(r, (t - 2) // 2)]
    alive = [i for i in range(t) if i not in src]
    sums = {i: size[i] * x[i] for i in alive}
    sizes = {i: float(size[i]) for i in alive}
    for i in src:
        target = max((j for j in alive if 0 < j < t - 1), key=lambda j: cosine[i, j])
        w_src, w_dst = np.exp(importance[i]), np.exp(importance[target])
        w_src, w_dst = 2 * w_src / (w_src + w_dst), 2 * w_dst / (w_src + w_dst)
        sums[target] = (
            sums[target] + w_src * size[i] * x[i] + (w_dst - 1) * size[target] * x[target]
        )
        sizes[target] += size[i]
    return src, np.array([sums[i] / sizes[i] for i in alive]), np.array([sizes[i] for i in alive])


def firsts(metric: torch.Tensor) -> set[int]:
    """The token of each tied pair that this machine's sort puts first."""
    unit = metric / metric.norm(dim=-1, keepdim=True)
    similarity = unit @ unit.T
    similarity.fill_diagonal_(-math.inf)
    similarity[[0, -1]] = -math.inf
    similarity[:, [0, -1]] = -math.inf
    best, target = similarity.max(dim=-1)
    order = best.argsort(descending=True).tolist()
    return {
        i
        for i in range(1, len(metric) - 1)
        if target[target[i]] == i and order.index(i) < order.index(int(target[i]))
    }


@pytest.mark.parametrize(("t", "r"), [(30, 5), (66, 13), (20, 0), (20, 50), (4, 1)])
def test_equals_the_slow_reference(t, r) -> None:
    x, metric, attention = inputs(t, seed=t)
    size = torch.randint(1, 4, (t, 1), generator=torch.Generator().manual_seed(t)).float()
    src, tokens, sizes = reference(
        x[0], metric[0], attention[0], r, size.flatten().double().numpy(), firsts(metric[0])
    )
    matching = complete_graph_matching(metric, attention, r)
    assert matching.src[0].tolist() == src
    out = crossget(x, metric, attention, r, size=size.unsqueeze(0))
    np.testing.assert_allclose(out.tokens[0], tokens, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(out.sizes[0].flatten(), sizes)


def test_importance_is_the_mean_plus_the_cross_row() -> None:
    attention = torch.tensor([[0.2, 0.3, 0.5], [0.4, 0.4, 0.2], [0.1, 0.6, 0.3]])
    # Means over the first two rows: 0.3, 0.35, 0.35; the last row on top.
    torch.testing.assert_close(token_importance(attention), torch.tensor([0.4, 0.95, 0.65]))


def test_class_and_cross_token_are_never_merged() -> None:
    x, metric, attention = inputs(20, batch=3)
    out = crossget(x, metric, attention, 9)
    assert torch.equal(out.tokens[:, 0], x[:, 0])
    assert torch.equal(out.tokens[:, -1], x[:, -1])


def test_the_llava_length() -> None:
    """578 tokens, 13 merged in each of 23 layers: 279 are left."""
    length = 578
    for _ in range(23):
        length = crossget(*inputs(length, c=2, d=1), 13).tokens.shape[1]
    assert length == 279


def test_leading_dimensions_are_free() -> None:
    x, metric, attention = inputs(30, batch=6)
    split = crossget(*(v.unflatten(0, (2, 3)) for v in (x, metric, attention)), 5)
    torch.testing.assert_close(split.tokens.flatten(0, 1), crossget(x, metric, attention, 5).tokens)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype) -> None:
    out = crossget(*(v.to(dtype) for v in inputs(730)), 13)
    assert out.tokens.shape == (1, 717, 4)
    assert out.tokens.dtype == dtype


def test_bad_arguments() -> None:
    x, metric, attention = inputs(10)
    with pytest.raises(InvalidInputError, match="r=-1"):
        crossget(x, metric, attention, -1)
    with pytest.raises(InvalidInputError, match="attention"):
        crossget(x, metric, attention[:, :-1], 1)
    with pytest.raises(InvalidInputError, match="cross token"):
        crossget(x[:, :1], metric[:, :1], attention[:, :1, :1], 1)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), t=st.integers(3, 50), r=st.integers(0, 20))
def test_sizes_add_up_and_sources_lead_to_survivors(seed, t, r) -> None:
    x, metric, attention = inputs(t, seed=seed)
    out = crossget(x, metric, attention, r, trace=True)
    assert float(out.sizes.sum()) == t
    members = torch.bincount(out.sources[0], minlength=out.tokens.shape[1])
    assert torch.equal(members.float(), out.sizes[0].flatten())
    assert out.kept_indices[0].tolist() == sorted(set(out.kept_indices[0].tolist()))


def test_equal_importance_is_a_plain_mean() -> None:
    x, metric, _ = inputs(12)
    out = crossget(x, metric, torch.full((1, 12, 12), 1 / 12), 5, trace=True)
    torch.testing.assert_close((out.sizes * out.tokens).sum(dim=1), x.sum(dim=1))
