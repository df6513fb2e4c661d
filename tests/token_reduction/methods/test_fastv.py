"""FastV against a slow float64 reading of the method, in both variants."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware_specs.errors import InvalidInputError
from token_reduction.fastv import fastv, fastv_random
from token_reduction.vtw import vtw


def attention_map(*shape: int, seed: int = 0) -> torch.Tensor:
    """Causal softmaxed rows, as a language-model layer has them."""
    logits = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    length = shape[-1]
    mask = torch.ones(length, length, dtype=torch.bool).triu(1)
    return logits.masked_fill(mask, -math.inf).softmax(dim=-1)


def reference(attention, count: int, start: int, n: int, *, paper: bool = False):
    """float64, one sequence [h, s, s], one token at a time."""
    heads, length, _ = attention.shape
    a = np.asarray(attention, dtype=np.float64)
    score = []
    for j in range(start, start + n):
        total = 0.0
        for h in range(heads):
            if paper:
                total += sum(a[h, i, j] for i in range(length) if i != j) / (length - 1)
            else:
                total += a[h, length - 1, j]
        score.append(total / heads)
    best = sorted(range(n), key=lambda j: -score[j])[:count]
    image = [start + j for j in best]
    return sorted([*range(start), *image, *range(start + n, length)]), score


@pytest.mark.parametrize("paper", [False, True])
def test_equals_the_slow_reference(paper) -> None:
    full = attention_map(4, 90, 90)
    kept, score = reference(full, 24, 7, 48, paper=paper)
    given_map = full if paper else full[:, -1]
    variant = "paper" if paper else "program"
    out = fastv(given_map, 0.5, start=7, image_tokens=48, variant=variant)
    assert out.kept_indices.tolist() == kept
    assert [7 + j for j in out.image_indices.tolist()] == [j for j in kept if 7 <= j < 55]
    np.testing.assert_allclose(out.scores, score, rtol=1e-4)


def test_every_sequence_may_have_its_own_start() -> None:
    row = attention_map(3, 4, 60, 60, seed=1)[:, :, -1]
    starts = [5, 9, 0]
    out = fastv(row, 10, start=torch.tensor(starts), image_tokens=30)
    for i, start in enumerate(starts):
        alone = fastv(row[i], 10, start=start, image_tokens=30)
        assert torch.equal(out.kept_indices[i], alone.kept_indices)
        assert torch.equal(out.image_indices[i], alone.image_indices)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_the_right_number(dtype) -> None:
    row = attention_map(2, 8, 700, 700)[:, :, -1].to(dtype)
    out = fastv(row, 0.25, start=35, image_tokens=576)
    assert out.kept_indices.shape == (2, 700 - 576 + 144)


def test_equal_attention_keeps_the_first() -> None:
    out = fastv(torch.full((2, 10), 0.1), 3, start=2, image_tokens=6)
    assert out.image_indices.tolist() == [0, 1, 2]


def test_the_papers_variant_needs_all_rows() -> None:
    with pytest.raises(InvalidInputError, match="all rows"):
        fastv(torch.ones(2, 10), 3, start=2, image_tokens=6, variant="paper")


@pytest.mark.parametrize(("start", "n"), [(-1, 4), (7, 4), (0, 11), (2, 0)])
def test_an_image_outside_the_sequence(start, n) -> None:
    with pytest.raises(InvalidInputError, match="image"):
        fastv(torch.ones(2, 10), 1, start=start, image_tokens=n)
    with pytest.raises(InvalidInputError, match="image"):
        vtw(10, start=start, image_tokens=n)


def test_random_keep_is_reproducible_and_uniform_in_count() -> None:
    def run(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        return fastv_random(
            0.25, start=3, image_tokens=40, length=50, generator=generator
        ).kept_indices.tolist()

    assert run(1) == run(1) != run(2)
    assert len(run(1)) == 10 + 10
    assert set(run(1)) >= {0, 1, 2, *range(43, 50)}


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    start=st.integers(0, 8),
    n=st.integers(1, 40),
    text=st.integers(1, 8),
)
def test_keeping_all_is_the_identity_and_keeping_none_is_withdrawal(seed, start, n, text) -> None:
    length = start + n + text
    row = torch.rand(2, length, generator=torch.Generator().manual_seed(seed))
    everything = fastv(row, 1.0, start=start, image_tokens=n)
    assert everything.kept_indices.tolist() == list(range(length))
    one = fastv(row, 1, start=start, image_tokens=n)
    withdrawn = vtw(length, start=start, image_tokens=n)
    image = {start + int(one.image_indices)}
    assert set(one.kept_indices.tolist()) - image == set(withdrawn.kept_indices.tolist())
    assert withdrawn.image_indices.numel() == 0
    assert withdrawn.kept_indices.tolist() == [*range(start), *range(start + n, length)]
