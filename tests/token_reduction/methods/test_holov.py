"""HoloV against a slow float64 reading of it, and its edges."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware_specs.errors import InvalidInputError
from token_reduction.holov import holov


def reference(tokens, attention, count: int, chunks: int):
    """(tokens chunk by chunk, zero vectors at the end; their indices)."""
    x, a = np.asarray(tokens, dtype=np.float64), np.asarray(attention, dtype=np.float64)
    n = len(x)
    bounds = [0]
    for p in range(chunks):
        size = n // chunks + (p < n % chunks)
        if size:
            bounds.append(bounds[-1] + size)
    weights = []
    for start, stop in itertools.pairwise(bounds):
        size, looked = stop - start, a[start:stop]
        if size == 1:
            weights.append(looked[0])
            continue
        unit = x[start:stop] / (np.linalg.norm(x[start:stop], axis=1, keepdims=True) + 1e-6)
        cosine = unit @ unit.T
        varied = []
        for i in range(size):
            row = [0.0 if i == j else cosine[i, j] for j in range(size)]
            mean = sum(row) / (size - 1)
            varied.append(sum((value - mean) ** 2 for value in row) / (size - 1))
        scale = (1000 * looked).mean() / (np.mean(varied) + 1e-6)
        weights.append((1000 * looked + 0.09 * np.array(varied) * scale).mean())
    shares = np.array(weights) / (sum(weights) + 1e-6)
    quotas = np.floor(shares * count).astype(int)
    for p in sorted(range(len(quotas)), key=lambda p: -shares[p])[: count - quotas.sum()]:
        quotas[p] += 1
    kept = []
    for (start, stop), quota in zip(itertools.pairwise(bounds), quotas, strict=True):
        kept += sorted(range(start, stop), key=lambda i: -a[i])[:quota]
    return kept


def drawn(n, seed=0, heads=2, width=6):
    made = torch.Generator().manual_seed(seed)
    tokens = torch.randn(n, width, generator=made, dtype=torch.float64)
    row = torch.randn(heads, n, generator=made, dtype=torch.float64).softmax(dim=-1)
    return tokens, row


@pytest.mark.parametrize(
    ("n", "count", "chunks"), [(64, 16, 16), (70, 20, 16), (35, 5, 4), (9, 4, 16), (576, 64, 16)]
)
def test_equals_the_slow_reference(n, count, chunks) -> None:
    tokens, row = drawn(n, seed=n)
    out = holov(tokens, row, count, chunks=chunks)
    kept = reference(tokens, row.mean(0), count, chunks)
    assert out.kept_indices[out.valid].tolist() == kept
    assert torch.equal(out.tokens[: len(kept)], tokens[kept])
    assert not out.tokens[len(kept) :].any()
    assert out.tokens.shape == (count, 6)


def test_a_quota_beyond_its_chunk_is_filled_up_with_zeros() -> None:
    """The class token looks at nothing but the first four patches: their chunk is owed all eight."""
    tokens, _ = drawn(16)
    row = torch.full((1, 16), 1e-9, dtype=torch.float64)
    row[0, :4] = 0.25
    out = holov(tokens, row, 8, chunks=4)
    assert out.valid.tolist() == [True] * 4 + [False] * 4
    assert sorted(out.kept_indices[:4].tolist()) == [0, 1, 2, 3]
    assert out.kept_indices[4:].tolist() == [-1] * 4
    assert not out.tokens[4:].any()


def test_within_a_chunk_attention_alone_decides_and_orders() -> None:
    tokens, row = drawn(32, seed=3)
    out = holov(tokens, row, 8, chunks=4)
    kept = out.kept_indices[out.valid]
    mean = row.mean(0)
    for chunk in range(4):
        inside = kept[kept // 8 == chunk]
        assert torch.equal(mean[inside], mean[inside].sort(descending=True).values)
    assert (kept // 8).tolist() == sorted((kept // 8).tolist())


def test_leading_dimensions_and_half_precision() -> None:
    pairs = [drawn(40, seed=seed) for seed in range(6)]
    tokens = torch.stack([x for x, _ in pairs]).view(2, 3, 40, 6)
    rows = torch.stack([a for _, a in pairs]).view(2, 3, 2, 40)
    out = holov(tokens, rows, 10, chunks=7)
    for i in range(2):
        for j in range(3):
            alone = holov(tokens[i, j], rows[i, j], 10, chunks=7)
            assert torch.equal(out.kept_indices[i, j], alone.kept_indices)
    assert holov(tokens.half(), rows.half(), 10, chunks=7).tokens.shape == (2, 3, 10, 6)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.floats(0.02, 1.0))
def test_the_length_is_what_was_asked_for(n, chunks, share) -> None:
    count = max(1, int(share * n))
    tokens, row = drawn(n, seed=n)
    out = holov(tokens, row, count, chunks=chunks)
    kept = out.kept_indices[out.valid].tolist()
    assert out.tokens.shape[0] == count
    assert len(set(kept)) == len(kept) <= count


def test_shapes() -> None:
    tokens, row = drawn(16)
    with pytest.raises(InvalidInputError, match="holov takes"):
        holov(tokens[:15], row, 4)
