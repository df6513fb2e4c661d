"""FasterVLM: a top-k by class attention."""

from __future__ import annotations

import torch

from token_reduction.fastervlm import fastervlm


def rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).softmax(dim=-1)


def test_fastervlm_is_a_top_k_in_spatial_order(draw) -> None:
    x, a = draw(2, 60, 4), rows(2, 3, 60)
    out = fastervlm(x, a, 0.25)
    for i in range(2):
        mean = a[i].double().mean(dim=0).tolist()
        best = sorted(range(60), key=lambda j: -mean[j])[:15]
        assert out.kept_indices[i].tolist() == sorted(best)
        assert torch.equal(out.tokens[i], x[i, sorted(best)])
