"""VisPruner in a model, by hand."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


from token_reduction import get_method  # noqa: E402


def test_vispruner(llava, cases, features, sequence, tower_view, in_double, agree):
    llava, case = in_double(llava, cases["llava"])
    view = tower_view(llava.model.vision_tower, case.inputs["pixel_values"])
    order = view.row[0, :, 1:].mean(0).argsort(descending=True).tolist()
    x = view.features[0, 1:]
    unit = x / x.norm(dim=1, keepdim=True)
    chosen, left = order[:20], order[20:]
    while len(left) > 20:
        even, odd = left[::2], left[1::2]
        go = min(8, len(left) - 20, len(even))
        like = (unit[even] @ unit[odd].T).max(1).values.argsort(descending=True).tolist()
        left = [even[i] for i in like[go:]] + odd
    kept = sorted(chosen + left)
    embeddings = sequence(llava, case, features(llava, case)[kept])
    record = agree(llava, case, get_method("vispruner", keep=40, important=0.5), embeddings)
    assert record.kept_indices[0].tolist() == kept
