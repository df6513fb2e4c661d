"""FasterVLM, VisPruner, VisionZip and HiRED in a model, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hardware_specs.errors import UnsupportedError
from token_reduction import get_method


def test_fastervlm(llava, cases, features, sequence, tower_view, agree):
    case = cases["llava"]
    view = tower_view(llava.model.vision_tower, case.inputs["pixel_values"])
    kept = sorted(view.row[0, :, 1:].mean(0).argsort(descending=True)[:40].tolist())
    embeddings = sequence(llava, case, features(llava, case)[kept])
    record = agree(llava, case, get_method("fastervlm", keep=40), embeddings)
    assert record.kept_indices[0].tolist() == kept


def test_vispruner(llava, cases, features, sequence, tower_view, in_double, agree):
    case = cases["llava"]
    llava, (inputs,) = in_double(llava, [case.inputs])
    case = replace(case, inputs=inputs)
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


def test_hired_on_one_crop_takes_the_whole_budget(
    llava, cases, features, sequence, tower_view, agree
):
    case = cases["llava"]
    view = tower_view(llava.model.vision_tower, case.inputs["pixel_values"])
    kept = sorted(view.row[0, :, 1:].sum(0).argsort(descending=True)[:57].tolist())
    embeddings = sequence(llava, case, features(llava, case)[kept])
    agree(llava, case, get_method("hired", keep=0.1, alpha=0.5), embeddings)


def test_hired_spends_a_budget_per_tile_and_keeps_newlines(
    models, cases, features, sequence, tower_view, agree
):
    model, case = models["llava-next"], cases["llava-next"]
    pixels = case.inputs["pixel_values"][0]
    early = tower_view(model.model.vision_tower, pixels, 0).row[..., 1:].sum(1)
    late = tower_view(model.model.vision_tower, pixels).row[..., 1:].sum(1)
    budget = int(5 * 144 * 0.2)
    whole = int(budget * 0.5)
    marked = early[0].argsort(descending=True)[: int(144 * 0.5)]
    share = torch.bincount(marked // 36, minlength=4).float() / 72
    counts = [whole, *(int(c) for c in share * (budget - whole))]
    stays = torch.zeros(5, 144, dtype=torch.bool)
    for tile, count in enumerate(counts):
        stays[tile, late[tile].argsort(descending=True)[:count]] = True
    # 100 x 160 on 2 x 2 tiles of 12 x 12: scaled by 1.05 to 105 rows of 168, so unpadding drops
    # (24 - 15) // 2 = 4 rows above and below; every row ends with a newline token.
    mosaic = stays[1:].view(2, 2, 12, 12).permute(0, 2, 1, 3).reshape(24, 24)[4:20]
    lines = torch.cat((mosaic, torch.ones(16, 1, dtype=torch.bool)), dim=1)
    mask = torch.cat((stays[0], lines.flatten()))
    assert len(mask) == case.visual == 544
    embeddings = sequence(model, case, features(model, case)[mask])
    record = agree(model, case, get_method("hired", keep=0.2, alpha=0.5), embeddings)
    assert record.tokens_after == [int(mask.sum())]


def test_hired_takes_no_videos(models, cases, generated):
    model, case = models["video-llava"], cases["video-llava:video"]
    with pytest.raises(UnsupportedError, match="not on videos"):
        generated(model, case, get_method("hired", keep=0.2, alpha=0.5))
