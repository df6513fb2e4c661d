"""FitPrune: scores against a slow reading, the shipped schemes, and the scheme search."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.methods.fitprune import scheme_for, shipped_schemes, tokens_by_layer
from hardware_specs.errors import InvalidInputError
from token_reduction.fitprune import (
    fitprune,
    mean_scheme,
    received_attention,
    search_scheme,
    visual_macs,
)


def attention_map(*shape: int, seed: int = 0) -> torch.Tensor:
    logits = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    mask = torch.ones(shape[-1], shape[-1], dtype=torch.bool).triu(1)
    return logits.masked_fill(mask, -math.inf).softmax(dim=-1)


def reference(attention, delete: int, start: int, n: int):
    a = np.asarray(attention, dtype=np.float64)
    heads, length, _ = a.shape
    scores = []
    for j in range(start, start + n):
        column = [max(a[h, i, j] for h in range(heads)) for i in range(length)]
        scores.append(sum(column[start : start + n]) / n * sum(column[start + n :]))
    gone = sorted(range(n), key=lambda j: scores[j])[:delete]
    return [i for i in range(length) if i - start not in gone], scores


@pytest.mark.parametrize("delete", [0, 1, 17, 40])
def test_equals_the_slow_reference(delete) -> None:
    attention = attention_map(3, 60, 60)
    kept, scores = reference(attention, delete, 6, 40)
    out = fitprune(attention, delete, start=6, image_tokens=40)
    assert out.kept_indices.tolist() == kept
    np.testing.assert_allclose(out.scores, scores, rtol=1e-4)
    assert len(out.image_indices) == 40 - delete


def test_every_sequence_may_have_its_own_start() -> None:
    attention = attention_map(2, 3, 50, 50, seed=4)
    out = fitprune(attention, 9, start=torch.tensor([3, 8]), image_tokens=30)
    for i, start in enumerate((3, 8)):
        alone = fitprune(attention[i], 9, start=start, image_tokens=30)
        assert torch.equal(out.kept_indices[i], alone.kept_indices)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype) -> None:
    attention = attention_map(3, 60, 60).to(dtype)
    out = fitprune(attention, 10, start=6, image_tokens=40)
    exact = fitprune(attention.float(), 10, start=6, image_tokens=40)
    assert out.scores.dtype == torch.float32
    assert torch.equal(out.kept_indices, exact.kept_indices)


@pytest.mark.parametrize("delete", [-1, 41])
def test_deletions_out_of_range(delete) -> None:
    with pytest.raises(InvalidInputError, match="40 image tokens"):
        fitprune(attention_map(1, 60, 60), delete, start=6, image_tokens=40)


def test_a_map_that_is_not_square() -> None:
    with pytest.raises(InvalidInputError, match="s, s"):
        fitprune(torch.ones(2, 4, 5), 1, start=0, image_tokens=2)


def test_scheme_for_a_share() -> None:
    assert scheme_for(0.4, None, 32, 576) == list(shipped_schemes()[60])
    assert sum(scheme_for(1.0, None, 32, 576)) == 0
    with pytest.raises(InvalidInputError, match=r"0\.45"):
        scheme_for(0.42, None, 32, 576)


@pytest.mark.parametrize("layers", [1, 2, 7, 32, 40])
@pytest.mark.parametrize("n", [16, 576, 2880])
def test_a_stretched_scheme_deletes_the_same_share(layers, n) -> None:
    stretched = scheme_for(0.4, None, layers, n)
    assert len(stretched) == layers
    assert min(stretched) >= 0
    assert sum(stretched) == round(449 / 576 * n)


def test_a_scheme_that_deletes_too_much() -> None:
    with pytest.raises(InvalidInputError, match="577"):
        tokens_by_layer((577,), 2, 576)


def slow_scheme(own, cross, alpha: float) -> list[int]:
    """float64 lists: per layer, the tokens in both cheap tails of what is still there."""
    present = set(range(len(own[0])))
    deleted = []
    for layer in range(len(own)):
        tails = []
        for row in (own[layer], cross[layer]):
            mass = sum(float(row[j]) for j in present)
            tail, running = set(), 0.0
            for j in sorted(present, key=lambda j: float(row[j])):
                running += float(row[j])
                if running / mass <= alpha + 1e-12:
                    tail.add(j)
            tails.append(tail)
        gone = tails[0] & tails[1]
        deleted.append(len(gone))
        present -= gone
    return deleted


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.8])
def test_the_search_finds_the_smallest_threshold(draw, keep) -> None:
    own = draw(6, 40, seed=1).exp().double()
    cross = draw(6, 40, seed=2).exp().double()
    found = search_scheme(
        own, cross, keep=keep, hidden_size=32, intermediate_size=64, tolerance=1e-4
    )

    def share(scheme) -> float:
        left, total = 40, 0
        for deleted in scheme:
            left -= deleted
            total += visual_macs(left, 32, 64)
        return total / (6 * visual_macs(40, 32, 64))

    steps = [slow_scheme(own, cross, alpha) for alpha in np.linspace(0, 1, 2001)]
    enough = next(scheme for scheme in steps if share(scheme) <= keep)
    assert share(found) <= keep
    assert share(found) >= share(enough) - 0.01
    assert list(found) in steps


def test_nothing_to_search_at_full_keep(draw) -> None:
    table = draw(4, 20).exp()
    assert search_scheme(table, table, keep=1.0, hidden_size=8, intermediate_size=8) == (0,) * 4


def test_search_from_real_maps() -> None:
    maps = attention_map(5, 2, 40, 40)
    own, cross = received_attention(maps, start=4, image_tokens=30)
    scheme = search_scheme(own, cross, keep=0.5, hidden_size=16, intermediate_size=32)
    assert sum(scheme) > 0


@pytest.mark.parametrize("keep", [0.0, 1.5])
def test_a_share_out_of_range(draw, keep) -> None:
    with pytest.raises(InvalidInputError, match="share"):
        search_scheme(draw(2, 4), draw(2, 4), keep=keep, hidden_size=8, intermediate_size=8)


def test_tables_that_do_not_fit(draw) -> None:
    with pytest.raises(InvalidInputError, match="layers"):
        search_scheme(draw(2, 4), draw(2, 5), keep=0.5, hidden_size=8, intermediate_size=8)
    with pytest.raises(InvalidInputError, match="same length"):
        mean_scheme([(1, 2), (1,)])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), keep=st.floats(0.05, 1.0))
def test_a_scheme_never_deletes_what_is_gone(seed, keep) -> None:
    generator = torch.Generator().manual_seed(seed)
    own, cross = torch.rand(2, 5, 24, generator=generator)
    scheme = search_scheme(own, cross, keep=keep, hidden_size=16, intermediate_size=16)
    assert min(scheme) >= 0
    assert sum(scheme) <= 24
