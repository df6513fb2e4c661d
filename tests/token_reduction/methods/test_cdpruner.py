"""CDPruner against a slow float64 reading of the method."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hardware_specs.errors import InvalidInputError
from token_reduction.cdpruner import cdpruner, greedy_map


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


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
