"""M3: pooling against torch's, and what it keeps."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware_specs.errors import InvalidInputError
from token_reduction.m3 import m3
from token_reduction.sampling import sequential, spatial


@pytest.mark.parametrize("keep", [576, 144, 36, 9, 1])
def test_pooling_equals_torchs(draw, keep) -> None:
    x = draw(2, 576, 5)
    factor = 24 // math.isqrt(keep)
    image = x.transpose(1, 2).reshape(2, 5, 24, 24)
    wanted = torch.nn.functional.avg_pool2d(image, factor).flatten(2).transpose(1, 2)
    torch.testing.assert_close(m3(x, keep).tokens, wanted)


def test_pooling_of_other_grids(draw) -> None:
    assert m3(draw(2, 3, 729, 4), 81).tokens.shape == (2, 3, 81, 4)  # 27 / 3 = 9
    assert m3(draw(256, 4), 0.25).tokens.shape == (64, 4)


@pytest.mark.parametrize("keep", [25, 40, 575])
def test_a_count_that_no_pooling_gives(draw, keep) -> None:
    with pytest.raises(InvalidInputError, match="576, 144, 64, 36, 16, 9, 4, 1"):
        m3(draw(576, 3), keep)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(draw, dtype) -> None:
    x = draw(576, 8).to(dtype)
    for out in (m3(x, 36), spatial(x, 36), sequential(x, 36)):
        assert out.tokens.dtype == dtype


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), out=st.integers(1, 6), factor=st.integers(1, 5))
def test_the_mean_survives_pooling(seed, out, factor) -> None:
    x = torch.randn((out * factor) ** 2, 3, generator=torch.Generator().manual_seed(seed)).double()
    pooled = m3(x, out * out)
    torch.testing.assert_close(pooled.tokens.mean(dim=0), x.mean(dim=0))
    members = torch.bincount(pooled.sources, minlength=out * out)
    assert torch.equal(members.double(), pooled.sizes.flatten())
    for token in range(out * out):
        torch.testing.assert_close(pooled.tokens[token], x[pooled.sources == token].mean(dim=0))
