"""PruMerge and PruMerge+ against a slow float64 reading of the method, and their properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware_specs.errors import InvalidInputError
from token_reduction.prumerge import outlier_count, prumerge, spatial_supplement


def inputs(n: int, c: int = 16, d: int = 12, *, seed: int = 0, batch: int = 1, sharp: float = 2.0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, n, d, generator=g)
    q = sharp * torch.randn(batch, n + 1, c, generator=g)
    k = torch.randn(batch, n + 1, c, generator=g)
    return x, q, k


def reference(x, q, k, *, neighbours=32, spatial=False, m=None, paper=False):
    """One image, float64, one token at a time."""
    x, q, k = (np.asarray(t, dtype=np.float64) for t in (x, q, k))
    n, c = len(x), q.shape[1]
    logits = [sum(q[0] * k[j]) / math.sqrt(c) for j in range(n + 1)]
    top = max(logits)
    weights = [math.exp(v - top) for v in logits]
    a = [w / sum(weights) for w in weights[1:]]
    if m is None:
        q1, q3 = np.percentile(a, [25, 75])
        outliers = [v for v in a if v > q3 + 1.5 * (q3 - q1)]
        ratio = len(outliers) / n
        m = int(n * ratio)
    else:
        ratio = m / n
    kept = sorted(range(n), key=lambda j: -a[j])[:m]
    if spatial:
        kept += [p for p in range(0, 575, int(int(1 / ratio) / 3)) if p not in kept]
    pruned = [j for j in range(n) if j not in kept]
    keys = k[1:]
    out = []
    for i in kept:
        if paper:
            near = sorted(pruned, key=lambda j: -float(keys[i] @ keys[j]))[:neighbours]
            out.append(a[i] * x[i] + sum((a[j] * x[j] for j in near), np.zeros_like(x[0])))
            continue
        cosine = {
            j: float(keys[i] @ keys[j]) / np.linalg.norm(keys[i]) / np.linalg.norm(keys[j])
            for j in range(n)
            if j != i
        }
        near = sorted(cosine, key=lambda j: -cosine[j])[:neighbours]
        out.append(x[i] + sum(a[j] * x[j] for j in near))
    if not paper:
        out.append(sum((a[j] * x[j] for j in pruned), np.zeros_like(x[0])))
    return kept, np.array(out), np.array(a)


@pytest.mark.parametrize(("n", "spatial"), [(144, False), (576, False), (576, True)])
def test_equals_the_slow_reference(n, spatial) -> None:
    x, q, k = inputs(n, seed=n)
    kept, tokens, attention = reference(x[0], q[0], k[0], spatial=spatial)
    out = prumerge(x, q, k, spatial=spatial)
    assert out.kept_indices[0].tolist() == kept
    assert len(kept) > 8
    np.testing.assert_allclose(out.tokens[0], tokens, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(out.cls_attention[0], attention, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("keep", [1, 32, 0.125, 576])
def test_a_fixed_keep_equals_the_slow_reference(keep) -> None:
    x, q, k = inputs(576, seed=5, d=3)
    m = keep if isinstance(keep, int) else int(576 * keep)
    if m == 576:
        x, q, k = x[:, :64], q[:, :65], k[:, :65]
        keep = m = 64
    kept, tokens, _ = reference(x[0], q[0], k[0], m=m)
    out = prumerge(x, q, k, keep=keep)
    assert out.kept_indices[0].tolist() == kept
    np.testing.assert_allclose(out.tokens[0], tokens, rtol=1e-4, atol=1e-5)


def test_the_papers_variant_equals_the_slow_reference() -> None:
    x, q, k = inputs(144, seed=2)
    kept, tokens, _ = reference(x[0], q[0], k[0], paper=True)
    out = prumerge(x, q, k, variant="paper")
    assert out.kept_indices[0].tolist() == kept
    np.testing.assert_allclose(out.tokens[0], tokens, rtol=1e-4, atol=1e-6)


def test_the_papers_plus_keeps_twice_as_many() -> None:
    x, q, k = inputs(144, seed=2)
    out = prumerge(x, q, k, keep=20, spatial=True, variant="paper")
    kept = out.kept_indices[0].tolist()
    assert len(set(kept)) == 40
    assert kept[20:] == sorted(kept[20:])
    # Evenly spaced over what attention left: no gap of more than twice the mean one.
    assert max(np.diff(kept[20:])) <= 2 * 144 / 20
    with pytest.raises(InvalidInputError, match="72"):
        prumerge(x, q, k, keep=73, spatial=True, variant="paper")


def test_only_the_class_tokens_query_is_read() -> None:
    x, q, k = inputs(64)
    torch.testing.assert_close(prumerge(x, q[:, :1], k).tokens, prumerge(x, q, k).tokens)


def test_leading_dimensions_are_free() -> None:
    x, q, k = inputs(64, batch=6)
    flat = prumerge(x, q, k, keep=7)
    split = prumerge(*(t.unflatten(0, (2, 3)) for t in (x, q, k)), keep=7)
    assert split.tokens.shape == (2, 3, 8, 12)
    torch.testing.assert_close(split.tokens.flatten(0, 1), flat.tokens)
    alone = prumerge(x[3], q[3], k[3], keep=7)
    assert torch.equal(alone.kept_indices, flat.kept_indices[3])


def test_one_threshold_over_the_batch() -> None:
    x, q, k = inputs(256, batch=3, seed=9)
    out = prumerge(x, q, k)
    a = out.cls_attention.numpy().astype(np.float64)
    q1, q3 = np.percentile(a, [25, 75])
    assert out.kept_indices.shape[-1] == int(256 * ((a > q3 + 1.5 * (q3 - q1)).sum() / a.size))


@pytest.mark.parametrize(("n", "lost"), [(144, 0), (256, 0), (576, 0), (1024, 0), (729, 1)])
def test_the_programs_truncation(n, lost) -> None:
    """int(n * (count / n)) is count for 576 and loses one for some counts at 729."""
    assert max(count - int(n * (count / n)) for count in range(n + 1)) == lost


@pytest.mark.parametrize("n", [729, 2880])
def test_other_token_counts(n) -> None:
    x, q, k = inputs(n, seed=1)
    out = prumerge(x, q, k)
    count = int(outlier_count(out.cls_attention))
    assert out.kept_indices.shape[-1] == int(n * (count / n)) in (count, count - 1)
    assert out.tokens.shape[-2] == out.kept_indices.shape[-1] + 1


def test_no_outlier_leaves_the_extra_token() -> None:
    x, _, _ = inputs(64)
    out = prumerge(x, torch.zeros(1, 65, 4), torch.zeros(1, 65, 4))
    assert out.kept_indices.shape == (1, 0)
    torch.testing.assert_close(out.tokens, x.sum(dim=1, keepdim=True) / 65)


def test_no_outlier_is_an_error_for_the_grid() -> None:
    x, _, _ = inputs(64)
    flat = torch.zeros(1, 65, 4)
    with pytest.raises(InvalidInputError, match="no outlier"):
        prumerge(x, flat, flat, spatial=True)


@pytest.mark.parametrize("keep", [193, 0.34, 576])
def test_more_than_a_third_is_an_error_for_the_grid(keep) -> None:
    x, q, k = inputs(576)
    with pytest.raises(InvalidInputError, match="1/3"):
        prumerge(x, q, k, keep=keep, spatial=True)


def test_a_sixth_keeps_all_but_the_last_patch() -> None:
    x, q, k = inputs(576)
    kept = prumerge(x, q, k, keep=0.2, spatial=True).kept_indices[0].tolist()
    assert sorted(set(kept) | {575}) == list(range(576))
    assert len(kept) == len(set(kept))


@pytest.mark.parametrize(("m", "grid"), [(32, 96), (40, 144), (64, 192), (72, 288)])
def test_grid_sizes(m, grid) -> None:
    assert len(spatial_supplement(576, m / 576)) == grid


def test_the_grid_takes_one_image() -> None:
    with pytest.raises(InvalidInputError, match="once per image"):
        prumerge(*inputs(64, batch=2), spatial=True)


@pytest.mark.parametrize("n", [1, 31, 32])
def test_too_few_tokens_for_the_neighbours(n) -> None:
    with pytest.raises(InvalidInputError, match="33 tokens"):
        prumerge(*inputs(n), keep=1)


def test_just_enough_tokens_for_the_neighbours() -> None:
    assert prumerge(*inputs(33), keep=1).tokens.shape == (1, 2, 12)
    assert prumerge(*inputs(5), keep=1, neighbours=4).tokens.shape == (1, 2, 12)
    assert prumerge(*inputs(5), keep=1, variant="paper").tokens.shape == (1, 1, 12)


@pytest.mark.parametrize(("cut_x", "cut_q", "cut_k"), [(0, 0, 1), (1, 0, 0), (0, 1, 0)])
def test_shapes_that_do_not_fit(cut_x, cut_q, cut_k) -> None:
    x, q, k = inputs(64)
    with pytest.raises(InvalidInputError, match="class token"):
        prumerge(x[:, cut_x:], q[:, cut_q:], k[:, cut_k:])


def test_equal_tokens_are_kept_in_index_order() -> None:
    x, q, k = inputs(64)
    same = k[:, :1].expand(1, 65, 16)
    assert prumerge(x, q, same, keep=5).kept_indices[0].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("spatial", [False, True])
def test_other_precisions(dtype, spatial) -> None:
    x, q, k = (t.to(dtype) for t in inputs(576, seed=4))
    out = prumerge(x, q, k, keep=0.1, spatial=spatial)
    exact = prumerge(x.double(), q.double(), k.double(), keep=0.1, spatial=spatial)
    assert out.tokens.dtype == dtype
    kept, wanted = set(out.kept_indices[0].tolist()), set(exact.kept_indices[0].tolist())
    # Half precision may swap tokens whose attention differs by less than its step.
    assert len(kept & wanted) >= len(wanted) - 4
    assert bool(out.tokens.isfinite().all())


def test_merge_weights_build_the_tokens() -> None:
    x, q, k = inputs(64)
    out = prumerge(x, q, k, keep=6)
    torch.testing.assert_close(out.merge_weights @ x, out.tokens)
    assert ((out.merge_weights[0, :6] > 0).sum(dim=-1) == 33).all()


def test_gradients_reach_the_features() -> None:
    x, q, k = inputs(64)
    x.requires_grad_()
    prumerge(x, q, k, keep=6).tokens.sum().backward()
    assert bool((x.grad != 0).all())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(33, 160), share=st.floats(0.02, 1.0))
def test_tokens_out_and_attention_mass(seed, n, share) -> None:
    x, q, k = inputs(n, seed=seed)
    m = max(int(n * share), 1)
    out = prumerge(x, q, k, keep=m)
    assert out.tokens.shape[-2] == m + 1
    assert len(set(out.kept_indices[0].tolist())) == m
    logits = (q[0, 0].double() @ k[0].double().T) / 4
    assert float(out.cls_attention.sum()) == pytest.approx(1 - float(logits.softmax(-1)[0]), 1e-5)
    if m == n:
        assert torch.equal(out.tokens[0, -1], torch.zeros(12))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_permuting_the_patches_changes_nothing_but_the_order(seed) -> None:
    x, q, k = inputs(100, seed=seed)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(seed))
    out = prumerge(x, q, k, keep=12)
    shuffled_k = torch.cat((k[:, :1], k[:, 1:][:, order]), dim=1)
    moved = prumerge(x[:, order], q[:, :1], shuffled_k, keep=12)
    assert order[moved.kept_indices[0]].tolist() == out.kept_indices[0].tolist()
    torch.testing.assert_close(moved.tokens, out.tokens, rtol=1e-4, atol=1e-5)
