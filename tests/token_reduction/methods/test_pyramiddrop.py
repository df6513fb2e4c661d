"""PyramidDrop against a slow float64 reading of the method."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hardware_specs.errors import InvalidInputError
from token_reduction.pyramiddrop import pyramiddrop


def test_pyramiddrop_equals_the_slow_reference(draw) -> None:
    query, keys = draw(4, 8, seed=1), draw(4, 50, 8, seed=2)
    score = np.zeros(50)
    for head in range(4):
        logits = np.array([float(query[head].double() @ k) for k in keys[head].double()])
        weights = np.exp(logits / math.sqrt(8))
        score += weights / weights.sum() / 4
    best = sorted(range(5, 38), key=lambda j: -score[j])[:16]  # int(33 * 0.5)
    out = pyramiddrop(query, keys, start=5, image_tokens=33)
    assert out.kept_indices.tolist() == sorted([*range(5), *best, *range(38, 50)])


def test_pyramiddrop_on_batches_and_bad_shapes(draw) -> None:
    query, keys = draw(3, 4, 8, seed=1), draw(3, 4, 50, 8, seed=2)
    out = pyramiddrop(query, keys, start=torch.tensor([5, 0, 9]), image_tokens=30)
    assert out.kept_indices.shape == (3, 35)
    with pytest.raises(InvalidInputError, match="query"):
        pyramiddrop(query[:, :2], keys, start=5, image_tokens=30)
