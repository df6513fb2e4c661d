"""ATS against a slow float64 reading of the method, and its bounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware_specs.errors import InvalidInputError
from token_reduction.ats import ats


def inputs(
    n: int, *, batch: int = 1, heads: int = 2, e: int = 4, seed: int = 0, sharp: float = 2.0
):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, n + 1, 3, generator=generator)
    a = (sharp * torch.randn(batch, heads, n + 1, generator=generator)).softmax(dim=-1)
    return x, a, torch.randn(batch, heads, n + 1, e, generator=generator)


def reference(a, v, references: int, *, cut: bool = True) -> list[int]:
    """float64: indices of the sampled tokens, class token first, then in ascending score."""
    a, v = np.asarray(a, np.float64), np.asarray(v, np.float64)
    heads, n = a.shape[0], a.shape[1] - 1
    scores = np.array(
        [
            sum(a[h, j + 1] for h in range(heads))
            * np.sqrt(sum(float(v[h, j + 1] @ v[h, j + 1]) for h in range(heads)))
            for j in range(n)
        ]
    )
    scores /= scores.sum()
    order = sorted(range(n), key=lambda j: scores[j])
    total = np.cumsum([scores[j] for j in order])
    level = (total - total[0]) / (total[-1] - total[0])
    samples = references - 1
    start = min(value for value in level if value > 0)
    hidden = max(n - samples, 0) if cut else 0
    found = set()
    for y in np.linspace(start, 1.0, samples):
        found.add(min(range(hidden, n), key=lambda i: abs(level[i] - y)))
    return [0] + [order[i] + 1 for i in sorted(found)]


@pytest.mark.parametrize(("n", "references"), [(60, 61), (60, 20), (60, 3), (60, 90), (196, 65)])
@pytest.mark.parametrize("variant", ["program", "paper"])
def test_equals_the_slow_reference(n, references, variant) -> None:
    x, a, v = inputs(n, seed=n)
    out = ats(x, a, v, references, variant=variant)
    wanted = reference(a[0], v[0], references, cut=variant == "program")
    assert out.kept_indices[0][out.valid[0]].tolist() == wanted
    torch.testing.assert_close(out.tokens[0, : len(wanted)], x[0, wanted])
    assert not bool(out.tokens[0, len(wanted) :].any())
    assert out.tokens.shape[1] == min(references, n + 1)


def test_a_batch_is_padded() -> None:
    x, a, v = inputs(40, batch=4, seed=3)
    out = ats(x, a, v, 15)
    for i in range(4):
        wanted = reference(a[i], v[i], 15)
        assert out.kept_indices[i][out.valid[i]].tolist() == wanted
        assert out.valid[i].tolist() == [True] * len(wanted) + [False] * (15 - len(wanted))


def test_a_ratio_counts_the_class_token() -> None:
    x, a, v = inputs(40)
    assert ats(x, a, v, 0.5).tokens.shape[1] == 20  # 20.5, to even
    assert ats(x, a, v).tokens.shape[1] == 41


def test_sources_of_what_is_sampled() -> None:
    x, a, v = inputs(20)
    out = ats(x, a, v, 8, trace=True)
    wanted = [-1] * 21
    for place, index in enumerate(out.kept_indices[0][out.valid[0]].tolist()):
        wanted[index] = place
    assert out.sources[0].tolist() == wanted


@pytest.mark.parametrize("n", [1, 2, 3])
def test_very_few_tokens(n) -> None:
    x, a, v = inputs(n)
    out = ats(x, a, v, 8)
    assert 2 <= int(out.valid.sum()) <= n + 1


def test_fewer_than_three_samples() -> None:
    with pytest.raises(InvalidInputError, match="at least 3"):
        ats(*inputs(40), 2)


def test_shapes_that_do_not_fit() -> None:
    x, a, v = inputs(10)
    with pytest.raises(InvalidInputError, match="values"):
        ats(x, a, v[:, :, 1:], 5)


@pytest.mark.parametrize("n", [729, 2880])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_lengths_and_precisions(n, dtype) -> None:
    x, a, v = (t.to(dtype) for t in inputs(n))
    out = ats(x, a, v, 64)
    assert out.tokens.shape == (1, 64, 3)
    assert out.tokens.dtype == dtype


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(2, 60),
    references=st.integers(3, 80),
    sharp=st.floats(0.0, 6.0),
)
def test_never_more_than_the_samples_and_always_the_class_token(seed, n, references, sharp) -> None:
    x, a, v = inputs(n, seed=seed, sharp=sharp)
    out = ats(x, a, v, references)
    kept = out.kept_indices[0][out.valid[0]].tolist()
    assert kept[0] == 0
    assert len(kept) == len(set(kept)) <= references
    # The sample at the top of the curve is the token with the largest score.
    assert float(out.scores[0, kept[-1] - 1]) == float(out.scores.max())
    assert float(out.scores.sum()) == pytest.approx(1.0, rel=1e-4)
