"""A token without length resembles none: in half precision, too, it draws nothing to itself."""

from __future__ import annotations

import pytest
import torch

from token_reduction.crossget import complete_graph_matching
from token_reduction.fastvid import fastvid
from token_reduction.holitom import merge_in_turn
from token_reduction.tome import bipartite_matching

DTYPES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])


@DTYPES
def test_an_anchor_of_zeros_stays_alone(dtype) -> None:
    """Of two anchors, the zeros and (1, 2), the latter is what the frame's tokens join."""
    clip = torch.tensor([[[9.0, 9.0], [0.0, 0.0], [0.0, 4.0], [1.0, 2.0]]], dtype=dtype)
    looked = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    out = fastvid(clip, torch.ones(1, 2), looked, 0.75, context=0.7, own=0.0)
    assert out.kept_indices.tolist() == [0, 1, 3]
    assert out.tokens[1].tolist() == [0.0, 0.0]
    # A quarter of the anchor, and three quarters of the mean of (1, 2), (0, 4) and (0, 0).
    assert out.tokens[2].tolist() == [0.5, 2.0]


@DTYPES
def test_a_kept_token_of_zeros_takes_nothing(dtype) -> None:
    states = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]], dtype=dtype)
    row = torch.tensor([[0.5, 0.4, 0.1]])
    assert merge_in_turn(states, row, 2).tokens.tolist() == [[0.0, 0.0], [1.5, 0.0]]


@DTYPES
def test_a_key_of_zeros_is_not_merged_before_others(dtype) -> None:
    metric = torch.tensor([[1.0, 0], [1, 1], [0, 0], [1, 2], [1, 2], [3, 1]], dtype=dtype)
    matching = bipartite_matching(metric, 1)
    assert (2 * matching.src).tolist() == [4]  # place 2 holds the zeros
    graph = complete_graph_matching(metric, torch.full((6, 6), 1 / 6), 1)
    assert graph.src.tolist() in ([3], [4])
