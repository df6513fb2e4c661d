"""SparseVLM in a model, by hand."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


from token_reduction import get_method  # noqa: E402
from token_reduction.sparsevlm import recycle  # noqa: E402
from token_reduction.tokens.reduced import Selection  # noqa: E402


def test_sparsevlm_recycles(llava, cases, features, sequence, agree):
    case = cases["llava"]
    embeddings = sequence(llava, case, features(llava, case))
    image, text = embeddings[case.start : case.start + 576], embeddings[case.start + 576 :]
    rating = (image @ text.T).softmax(-1).mean(0)
    raters = (rating > rating.mean()).nonzero().flatten()
    left = [576]
    counts = {1: 200, 3: 60}

    def drop(number, x, weights, _positions):
        if number not in counts:
            return None
        stop = case.start + left[0]
        row = weights.mean(0)[stop + raters].mean(0)[case.start : stop]
        kept = row.argsort(descending=True)[: counts[number]].sort().values
        states = x[case.start : stop]
        new = recycle(states, Selection(kept, kept, row))
        left[0] = counts[number] + len(new)
        return torch.cat((x[: case.start], states[kept], new, x[stop:]))

    method = get_method("sparsevlm", keep=192, layers=(0, 2), counts=(200, 60))
    record = agree(llava, case, method, embeddings, before_layer=drop, renumber=True)
    # 376 go, 112 of them are recycled in 12 clusters; of 212, 152 go, 45 recycled in 5.
    assert record.sequence_lengths == [585, 9 + 212, 9 + 212, 9 + 65, 9 + 65]
    assert record.visual_tokens == (576, 65)
    assert len(record.kept_indices[0]) <= 60
