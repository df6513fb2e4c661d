"""PyramidDrop in a model, by hand."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


from token_reduction import get_method  # noqa: E402


def text_and(case, length, left, visual):
    """Rows of a sequence with `left` visual tokens: all text and these of them."""
    text = [i for i in range(length) if not case.start <= i < case.start + left]
    return sorted([*text, *(case.start + int(v) for v in visual)])


@pytest.mark.parametrize("kind", ["llava", "llava-next", "llava-onevision"])
def test_pyramiddrop_renumbers(kind, models, cases, features, hand, sequence, project, agree):
    model, case = models[kind], cases[kind]
    embeddings = sequence(model, case, features(model, case))
    left = [case.visual]
    reference = hand(model)

    def drop(number, x, _weights, positions):
        if number not in (1, 3):
            return None
        q, k, _ = reference.project(number, x, positions)
        row = ((q[:, -1:] @ k.transpose(1, 2)) * q.shape[-1] ** -0.5).softmax(-1)[:, 0].mean(0)
        image = row[case.start : case.start + left[0]]
        count = int(left[0] * 0.5)
        rows = text_and(case, len(x), left[0], image.argsort(descending=True)[:count])
        left[0] = count
        return rows

    method = get_method("pyramiddrop", keep=0.5, layers=(1, 3))
    record = agree(model, case, method, embeddings, before_layer=drop, renumber=True)
    assert list(record.kept_by_layer) == [1, 3]
    assert record.visual_tokens == (case.visual, case.visual // 2 // 2)
