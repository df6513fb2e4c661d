"""VisionZip in a model, by hand."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


from token_reduction import get_method  # noqa: E402


def test_visionzip(llava, cases, sequence, tower_view, project, agree):
    case = cases["llava"]
    view = tower_view(llava.model.vision_tower, case.inputs["pixel_values"])
    x, metric = view.features[0], view.metric[0]
    attention = view.row[0].sum(0)[1:]
    best = attention.argsort(descending=True)[:26] + 1  # 32 in all: 27 dominant, 5 contextual
    dominant = sorted([0, *best.tolist()])
    rest = [place for place in range(577) if place not in dominant]
    step = len(rest) // 5
    targets = rest[::step][:5]
    joining = [place for place in rest if place not in targets]
    unit = metric / metric.norm(dim=1, keepdim=True)
    group = (unit[joining] @ unit[targets].T).argmax(1)
    rows = [x[place] for place in dominant]
    for number, place in enumerate(targets):
        members = [p for p, g in zip(joining, group.tolist(), strict=True) if g == number]
        rows.append(x[place] + (x[members].mean(0) if members else 0))
    visual = project(llava, torch.stack(rows))
    record = agree(llava, case, get_method("visionzip", keep=32), sequence(llava, case, visual))
    assert record.visual_tokens == (576, 32)
    assert record.kept_indices[0].tolist() == [place - 1 for place in dominant[1:]]


def test_a_videos_class_token_is_not_there_twice(models, cases, generated):
    model, case = models["video-llava"], cases["video-llava:video"]
    _, _, record = generated(model, case, get_method("visionzip", keep=32))
    assert record.visual_tokens == (435, 3 * 32)
