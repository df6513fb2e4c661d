"""VisionZip against a slow float64 reading of the method."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hardware_specs.errors import InvalidInputError
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
