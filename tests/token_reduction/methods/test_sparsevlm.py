"""SparseVLM against a slow float64 reading: ratings, selection, recycling."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.methods.sparsevlm import KEEP_LISTS
from hardware_specs.errors import InvalidInputError
from token_reduction.cdpruner import cdpruner
from token_reduction.dart import dart
from token_reduction.sparsevlm import (
    cluster_and_merge,
    recycle,
    sparsevlm,
    text_raters,
)
from token_reduction.visionzip import visionzip


@pytest.mark.parametrize("keep", [300, 12, 0.5])
def test_sparsevlm_equals_the_slow_reference(draw, keep) -> None:
    image, text = draw(400, 8, seed=1), draw(20, 8, seed=2)
    attention = draw(3, 20, 440, seed=3).softmax(dim=-1)
    logits = image.double().numpy() @ text.double().numpy().T
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    rating = (weights / weights.sum(axis=1, keepdims=True)).mean(axis=0)
    raters = [t for t in range(20) if rating[t] > rating.mean()]
    mask = text_raters(image, text)
    assert mask.nonzero().flatten().tolist() == raters
    score = attention.double().mean(dim=0)[raters].mean(dim=0)[15:415].tolist()
    count = keep if isinstance(keep, int) else 200
    best = sorted(sorted(range(400), key=lambda j: -score[j])[:count])
    out = sparsevlm(attention, mask, keep, start=15, image_tokens=400)
    assert out.image_indices.tolist() == best
    np.testing.assert_allclose(out.scores, score, rtol=1e-4)


def slow_clusters(x, clusters: int) -> np.ndarray:
    x = np.asarray(x, np.float64)
    p, d = x.shape
    distance = [[math.dist(x[i], x[j]) / math.sqrt(d) for j in range(p)] for i in range(p)]
    density = [
        math.exp(-sum(v * v for v in sorted(distance[i])[:clusters]) / clusters) for i in range(p)
    ]
    farthest = max(map(max, distance))
    gap = [
        min([distance[i][j] for j in range(p) if density[j] > density[i]], default=farthest)
        for i in range(p)
    ]
    centres = sorted(range(p), key=lambda i: -gap[i] * density[i])[:clusters]
    group = [min(range(clusters), key=lambda c: distance[i][centres[c]]) for i in range(p)]
    return np.array(
        [np.mean([x[i] for i in range(p) if group[i] == c], axis=0) for c in range(clusters)]
    )


@pytest.mark.parametrize(("p", "clusters"), [(60, 7), (12, 12), (5, 1)])
def test_clusters_equal_the_slow_reference(draw, p, clusters) -> None:
    x = draw(p, 4, seed=p)
    wanted = slow_clusters(x, clusters)
    np.testing.assert_allclose(cluster_and_merge(x, clusters), wanted, rtol=1e-4, atol=1e-5)


def test_recycling_takes_the_best_of_the_pruned(draw) -> None:
    states = draw(2, 576, 6)
    attention = draw(2, 3, 20, 620, seed=1).softmax(dim=-1)
    mask = torch.ones(2, 20, dtype=torch.bool)
    selection = sparsevlm(attention, mask, KEEP_LISTS[192][0], start=20, image_tokens=576)
    # 276 pruned, int(82.8) of them recycled, 82 // 10 + 1 clusters.
    assert recycle(states, selection).shape == (2, 9, 6)
    everything = sparsevlm(attention, mask, 1.0, start=20, image_tokens=576)
    assert recycle(states, everything).shape == (2, 0, 6)


def test_sparsevlm_refuses_what_does_not_fit(draw) -> None:
    attention = draw(3, 20, 60).softmax(dim=-1)
    with pytest.raises(InvalidInputError, match="raters"):
        sparsevlm(attention, torch.ones(19, dtype=torch.bool), 4, start=0, image_tokens=30)
    with pytest.raises(InvalidInputError, match="clusters"):
        cluster_and_merge(draw(4, 2), 5)


def test_no_rater_at_all_scores_nothing(draw) -> None:
    attention = draw(3, 20, 60).softmax(dim=-1)
    none = torch.zeros(20, dtype=torch.bool)
    out = sparsevlm(attention, none, 4, start=0, image_tokens=30)
    assert out.image_indices.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(draw, dtype) -> None:
    x, k = draw(730, 5).to(dtype), draw(730, 7, seed=1).to(dtype)
    a = draw(3, 730, seed=2).softmax(dim=-1).to(dtype)
    assert visionzip(x, a, k, dominant=54, contextual=10).tokens.dtype == dtype
    assert cdpruner(x, k, k[:3], 30).tokens.dtype == dtype
    assert cluster_and_merge(x, 9).dtype == dtype
    heads = k.unsqueeze(0)
    assert dart(heads, x, 64, start=10, image_tokens=700).kept_indices.shape == (98,)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(2, 60), data=st.data())
def test_every_token_is_in_one_cluster(seed, n, data) -> None:
    clusters = data.draw(st.integers(1, n))
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=generator).double()
    out = cluster_and_merge(x, clusters)
    assert out.shape == (clusters, 3)
    assert bool(out.isfinite().all())
    low, high = x.amin(dim=0) - 1e-9, x.amax(dim=0) + 1e-9
    assert bool(((out >= low) & (out <= high)).all())
    if clusters == 1:
        torch.testing.assert_close(out[0], x.mean(dim=0))
