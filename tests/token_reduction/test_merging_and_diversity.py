"""VisionZip, CDPruner, DART and SparseVLM against slow float64 readings of the methods."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.methods.sparsevlm import KEEP_LISTS
from hardware_specs.errors import InvalidInputError
from token_reduction.cdpruner import cdpruner, greedy_map
from token_reduction.dart import dart
from token_reduction.sparsevlm import (
    cluster_and_merge,
    recycle,
    sparsevlm,
    text_raters,
)
from token_reduction.visionzip import split_keep, visionzip


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


def slow_visionzip(x, a, k, dominant: int, contextual: int):
    x, a, k = (np.asarray(v, np.float64) for v in (x, a, k))
    score = a.sum(axis=0)
    best = sorted(range(1, len(x)), key=lambda j: -score[j])[: dominant - 1]
    kept = sorted([0, *best])
    rest = [j for j in range(len(x)) if j not in kept]
    out = [x[j] for j in kept]
    if contextual:
        targets = rest[:: max(1, len(rest) // contextual)][:contextual]
        joined: dict[int, list[int]] = {t: [] for t in targets}
        for j in rest:
            if j not in joined:
                joined[max(targets, key=lambda t: cosine(k[j], k[t]))].append(j)
        for t in targets:
            extra = np.mean([x[j] for j in joined[t]], axis=0) if joined[t] else 0.0
            out.append(x[t] + extra)
    return kept, np.array(out)


@pytest.mark.parametrize(
    ("n", "dominant", "contextual"),
    [(100, 20, 6), (100, 1, 3), (100, 54, 0), (20, 10, 11), (20, 21, 0)],
)
def test_visionzip_equals_the_slow_reference(draw, n, dominant, contextual) -> None:
    x, k = draw(n + 1, 5, seed=1), draw(n + 1, 7, seed=2)
    a = draw(3, n + 1, seed=3).softmax(dim=-1)
    kept, tokens = slow_visionzip(x, a, k, dominant, contextual)
    out = visionzip(x, a, k, dominant=dominant, contextual=contextual)
    assert out.kept_indices is not None
    assert out.kept_indices.tolist() == kept
    np.testing.assert_allclose(out.tokens, tokens, rtol=1e-4, atol=1e-5)


def test_visionzip_on_batches_and_bad_arguments(draw) -> None:
    x, k = draw(2, 31, 5), draw(2, 31, 7, seed=1)
    a = draw(2, 3, 31, seed=2).softmax(dim=-1)
    out = visionzip(x, a, k, dominant=9, contextual=4)
    alone = visionzip(x[1], a[1], k[1], dominant=9, contextual=4)
    torch.testing.assert_close(out.tokens[1], alone.tokens)
    for dominant, contextual in ((0, 4), (9, -1), (20, 12)):
        with pytest.raises(InvalidInputError, match="dominant"):
            visionzip(x, a, k, dominant=dominant, contextual=contextual)
    with pytest.raises(InvalidInputError, match="metric"):
        visionzip(x, a, k[:, 1:], dominant=9, contextual=4)


@pytest.mark.parametrize("keep", [1, 6, 7, 64, 100, 0.5])
def test_a_count_is_split_in_the_published_proportion(keep) -> None:
    dominant, contextual = split_keep(keep, 576)
    assert dominant >= 1
    assert dominant + contextual == (keep if isinstance(keep, int) else 288)
    assert abs(contextual - 10 / 64 * (dominant + contextual)) < 1


def slow_cdpruner(x, images, texts, keep: int) -> list[int]:
    """float64: at each step the determinant of every candidate set, afresh."""
    x, images, texts = (np.asarray(v, np.float64) for v in (x, images, texts))
    relevance = np.array([-np.mean([cosine(i, t) for t in texts]) for i in images])
    relevance = (relevance - relevance.min() + 1e-6) / (relevance.max() - relevance.min())
    n = len(x)
    kernel = np.array(
        [[relevance[i] * cosine(x[i], x[j]) * relevance[j] for j in range(n)] for i in range(n)]
    )
    picks: list[int] = []
    while len(picks) < keep:
        rest = [j for j in range(n) if j not in picks]
        picks.append(
            max(rest, key=lambda j: np.linalg.slogdet(kernel[np.ix_([*picks, j], [*picks, j])])[1])
        )
    return picks


@pytest.mark.parametrize(("n", "keep", "width"), [(40, 10, 24), (12, 12, 24), (5, 1, 3)])
def test_cdpruner_equals_the_slow_reference(draw, n, keep, width) -> None:
    x, images, texts = draw(n, width, seed=1), draw(n, 6, seed=2), draw(3, 6, seed=3)
    out = cdpruner(x, images, texts, keep)
    wanted = slow_cdpruner(x, images, texts, keep)
    # The least relevant patch has a kernel of 1e-12: its place among the last is rounding.
    assert out.selection_order is not None
    assert out.selection_order.tolist()[: n - 2] == wanted[: n - 2]
    assert out.kept_indices is not None
    assert out.kept_indices.tolist() == sorted(out.selection_order.tolist())


def test_cdpruner_on_batches_and_bad_shapes(draw) -> None:
    x, images, texts = draw(2, 30, 16), draw(2, 30, 6, seed=1), draw(3, 6, seed=2)
    out = cdpruner(x, images, texts, 8)
    for i in range(2):
        alone = cdpruner(x[i], images[i], texts, 8)
        assert out.selection_order is not None
        assert alone.selection_order is not None
        assert torch.equal(out.selection_order[i], alone.selection_order)
    with pytest.raises(InvalidInputError, match="text_embeds"):
        cdpruner(x, images, texts[:, 1:], 8)
    with pytest.raises(InvalidInputError, match="NaN"):
        cdpruner(x * float("nan"), images, texts, 8)


def test_greedy_map_past_the_rank_still_picks_distinct_tokens(draw) -> None:
    x = draw(30, 4)
    assert sorted(greedy_map(x @ x.T, 30).tolist()) == list(range(30))


def slow_dart(keys, hidden, keep, start, n, image_pivots, text_pivots, order) -> list[int]:
    keys, hidden = np.asarray(keys, np.float64), np.asarray(hidden, np.float64)
    norm = np.abs(keys).sum(axis=(0, 2))
    own = sorted(range(start, start + n), key=lambda j: -norm[j])[:image_pivots]
    text = sorted(range(start + n, len(hidden)), key=lambda j: -norm[j])[:text_pivots]
    turns = text + own if order == "norm" else list(set(own + text))
    kept = list(own)
    for pivot in turns:
        rest = [j for j in range(start, start + n) if j not in kept]
        rest.sort(key=lambda j: cosine(hidden[pivot], hidden[j]))
        kept += rest[: math.ceil(keep / len(turns))]
    return sorted(j - start for j in kept)


@pytest.mark.parametrize("order", ["set", "norm"])
@pytest.mark.parametrize(("keep", "pivots"), [(32, (4, 4)), (30, (4, 4)), (9, (0, 3)), (9, (3, 0))])
def test_dart_equals_the_slow_reference(draw, order, keep, pivots) -> None:
    keys, hidden = draw(3, 120, 5, seed=1), draw(120, 12, seed=2)
    image, text = pivots
    wanted = slow_dart(keys, hidden, keep, 10, 90, image, text, order)
    out = dart(
        keys,
        hidden,
        keep,
        start=10,
        image_tokens=90,
        image_pivots=image,
        text_pivots=text,
        order=order,
    )
    assert out.image_indices.tolist() == wanted
    assert out.kept_indices.tolist() == [
        *range(10),
        *(10 + j for j in wanted),
        *range(100, 120),
    ]


def test_dart_keeps_the_leading_dimension_of_one_sequence(draw) -> None:
    keys, hidden = draw(1, 3, 60, 5), draw(1, 60, 12, seed=2)
    out = dart(keys, hidden, 16, start=5, image_tokens=40)
    assert out.kept_indices.shape == (1, 16 + 4 + 20)
    with pytest.raises(InvalidInputError, match="one sequence"):
        dart(keys.repeat(2, 1, 1, 1), hidden.repeat(2, 1, 1), 16, start=5, image_tokens=40)


@pytest.mark.parametrize(
    "options", [{"text_pivots": 16}, {"image_pivots": -1}, {"image_pivots": 0, "text_pivots": 0}]
)
def test_dart_without_enough_pivots(draw, options) -> None:
    with pytest.raises(InvalidInputError, match="pivots"):
        dart(draw(3, 60, 5), draw(60, 12), 16, start=5, image_tokens=40, **options)


def test_dart_with_more_than_there_are(draw) -> None:
    with pytest.raises(InvalidInputError, match="more than the 40"):
        dart(draw(3, 60, 5), draw(60, 12), 1.0, start=5, image_tokens=40)


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
    assert out.scores is not None
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
