"""VTW: the withdrawal, and the search for its layer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hardware_specs.errors import InvalidInputError
from token_reduction.vtw import ETA, search_layer, vtw, withdrawal_divergence


def test_withdrawal_may_start_elsewhere_in_each_sequence() -> None:
    out = vtw(6, start=torch.tensor([0, 3]), image_tokens=2)
    assert out.kept_indices.tolist() == [[2, 3, 4, 5], [0, 1, 2, 5]]


def test_withdrawing_everything_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="empty"):
        vtw(4, start=0, image_tokens=4)


def test_divergence_equals_its_definition(draw) -> None:
    full, withdrawn = draw(3, 1, 50, seed=1), draw(3, 4, 50, seed=2)
    p = np.exp(withdrawn.double().numpy())
    p /= p.sum(-1, keepdims=True)
    q = np.exp(full.double().numpy())
    q /= q.sum(-1, keepdims=True)
    wanted = (p * np.log(p / q)).sum(-1)
    np.testing.assert_allclose(withdrawal_divergence(full, withdrawn), wanted, rtol=1e-4)


def test_divergence_widens_half_precision(draw) -> None:
    logits = draw(50).half()
    out = withdrawal_divergence(logits, logits)
    assert out.dtype == torch.float32
    assert float(out) == 0.0


def test_the_first_layer_under_eta_is_taken() -> None:
    means = torch.tensor([0.02, 0.004, 0.0029, 0.0031, 0.001])
    table = means + torch.tensor([[0.001], [-0.001]])
    assert search_layer(table, ETA["llava-1.5-7b"]) == 7
    assert search_layer(table, 0.1) == 5
    assert search_layer(table, 0.001001, first_layer=2) == 6


def test_no_layer_under_eta_says_how_close_it_came() -> None:
    with pytest.raises(InvalidInputError, match=r"layer 6 with 0\.01"):
        search_layer(torch.tensor([[0.2, 0.01, 0.3]]), 0.001)


@pytest.mark.parametrize(
    "table", [torch.ones(3), torch.ones(0, 3), torch.tensor([[math.nan, 0.0]])]
)
def test_a_table_that_holds_no_answer(table) -> None:
    with pytest.raises(InvalidInputError):
        search_layer(table, 1.0)
