"""FasterVLM in a model, by hand."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


from token_reduction import get_method  # noqa: E402


def test_fastervlm(llava, cases, features, sequence, tower_view, agree):
    case = cases["llava"]
    view = tower_view(llava.model.vision_tower, case.inputs["pixel_values"])
    kept = sorted(view.row[0, :, 1:].mean(0).argsort(descending=True)[:40].tolist())
    embeddings = sequence(llava, case, features(llava, case)[kept])
    record = agree(llava, case, get_method("fastervlm", keep=40), embeddings)
    assert record.kept_indices[0].tolist() == kept
