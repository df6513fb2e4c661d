"""CDPruner against a slow float64 reading of the method."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hardware_specs.errors import InvalidInputError
from token_reduction.cdpruner import cdpruner, greedy_map, split_cdpruner


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
    assert out.selection_order.tolist()[: n - 2] == wanted[: n - 2]
    assert out.kept_indices.tolist() == sorted(out.selection_order.tolist())


def test_cdpruner_on_batches_and_bad_shapes(draw) -> None:
    x, images, texts = draw(2, 30, 16), draw(2, 30, 6, seed=1), draw(3, 6, seed=2)
    out = cdpruner(x, images, texts, 8)
    for i in range(2):
        alone = cdpruner(x[i], images[i], texts, 8)
        assert torch.equal(out.selection_order[i], alone.selection_order)
    with pytest.raises(InvalidInputError, match="text_embeds"):
        cdpruner(x, images, texts[:, 1:], 8)


def test_a_question_that_tells_no_tokens_apart_leaves_it_to_diversity() -> None:
    x = torch.tensor([[1.0, 0.0], [1.0, 0.01], [1.0, 0.02], [0.0, 1.0]])
    same, question = torch.tensor([[0.3, 0.7, 0.2]]).repeat(4, 1), torch.ones(2, 3)
    assert cdpruner(x, same, question, 2).kept_indices[-1] == 3  # not two of the first three
    halves = torch.cat((x, x))
    assert {3, 7} < set(split_cdpruner(halves, torch.zeros(1, 2), 4).kept_indices.tolist())


def test_greedy_map_past_the_rank_still_picks_distinct_tokens(draw) -> None:
    x = draw(30, 4)
    assert sorted(greedy_map(x @ x.T, 30).tolist()) == list(range(30))


def slow_split(x, texts, keep: int) -> list[int]:
    """float64, half by half, determinants afresh; of equal ones the first."""
    x, texts = np.asarray(x, np.float64), np.asarray(texts, np.float64)
    keep = min(keep + keep % 2, len(x))
    middle, kept = len(x) // 2, []
    for part, share in ((range(middle), keep // 2), (range(middle, len(x)), keep - keep // 2)):
        mean = np.array(
            [np.mean([cosine(x[i], t) for t in texts]) if len(texts) else 0 for i in part]
        )
        weight = (mean - mean.min()) / (np.ptp(mean) + 1e-6) if len(texts) else np.ones(len(part))
        kernel = np.array(
            [[(0.5 + 0.5 * a * b) * cosine(x[i], x[j]) for b, j in zip(weight, part, strict=True)]
             for a, i in zip(weight, part, strict=True)]
        )  # fmt: skip
        picks: list[int] = []
        while len(picks) < share:
            rest = [j for j in range(len(part)) if j not in picks]
            volume = {
                j: round(np.linalg.det(kernel[np.ix_([*picks, j], [*picks, j])]), 12) for j in rest
            }
            picks.append(max(rest, key=volume.__getitem__))
        kept += [part[0] + j for j in picks]
    return kept


@pytest.mark.parametrize(("n", "keep", "texts"), [(40, 10, 3), (41, 9, 3), (30, 6, 0), (7, 5, 1)])
def test_halves_equal_the_slow_reference(draw, n, keep, texts) -> None:
    x, text = draw(n, 24, seed=n), draw(texts, 24, seed=2)
    out = split_cdpruner(x, text, keep)
    assert out.selection_order.tolist() == slow_split(x, text, keep)


def test_what_the_text_says_counts_half() -> None:
    """Of two equal tokens that fit the text best, the second gives way to one that fits worst but differs."""
    half = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    text = torch.tensor([[1.0, 0.0, 0.0]])
    assert split_cdpruner(torch.cat((half, half)), text, 4).kept_indices.tolist() == [0, 2, 3, 5]


def test_halves_give_as_many_each_and_an_odd_count_is_made_even(draw) -> None:
    out = split_cdpruner(draw(36, 24), draw(3, 24, seed=1), 9)
    assert [int(part) for part in ((out.kept_indices < 18).sum(), len(out.kept_indices))] == [5, 10]
    assert len(split_cdpruner(draw(5, 24), draw(3, 24, seed=1), 5).tokens) == 5
    with pytest.raises(InvalidInputError, match="text embeddings"):
        split_cdpruner(draw(36, 24), draw(3, 8), 9)
