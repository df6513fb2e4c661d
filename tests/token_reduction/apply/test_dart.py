"""DART in a model, by hand."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


from token_reduction import get_method  # noqa: E402


def text_and(case, length, left, visual):
    """Rows of a sequence with `left` visual tokens: all text and these of them."""
    text = [i for i in range(length) if not case.start <= i < case.start + left]
    return sorted([*text, *(case.start + int(v) for v in visual)])


@pytest.mark.parametrize("order", ["norm", "set"])
def test_dart(order, llava, cases, features, hand, sequence, project, agree):
    case = cases["llava"]
    embeddings = sequence(llava, case, features(llava, case))
    reference = hand(llava)
    norm = llava.model.language_model.norm

    def drop(number, x, _weights, _positions):
        if number != 2:
            reference.before = x
            return None
        keys = reference.project(1, reference.before, torch.arange(len(x)))[1]
        size = keys.abs().sum(dim=(0, 2))
        image = size[case.start : case.start + 576].argsort(descending=True)[:3]
        text = size[case.start + 576 :].argsort(descending=True)[:2] + case.start + 576
        turns = [*text.tolist(), *(image + case.start).tolist()]
        if order == "set":
            turns = list({*(image + case.start).tolist(), *text.tolist()})
        states = reference._norm(norm, x)
        unit = states / states.norm(dim=1, keepdim=True)
        taken = image.tolist()
        for pivot in turns:
            like = unit[case.start : case.start + 576] @ unit[pivot]
            like[taken] = torch.inf
            taken += like.argsort()[:8].tolist()
        return text_and(case, len(x), 576, sorted(taken))

    method = get_method("dart", keep=40, layer=2, image_pivots=3, text_pivots=2, order=order)
    record = agree(llava, case, method, embeddings, before_layer=drop)
    assert record.visual_tokens == (576, 43)
