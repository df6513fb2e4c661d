"""Methods before the language model: generation equals a sequence rebuilt by hand, token by token."""

from __future__ import annotations

import pytest
import torch

from token_reduction import get_method, reduce_tokens


@pytest.fixture
def like_hand(agree, sequence):
    """Generation under a method equals the hand-written model on these visual tokens; the record."""

    def check(model, case, method, visual):
        record = agree(model, case, method, sequence(model, case, visual))
        assert record.visual_tokens == (case.visual, len(visual))
        return record

    return check


# ----------------------------------------------------------------- the methods, written out slowly


def farthest(tokens, count):
    """DivPrune as its paper has it: max-min of the cosine distance, from the loneliest token."""
    unit = tokens.double() / tokens.double().norm(dim=1, keepdim=True)
    distance = 1 - unit @ unit.T
    lonely = distance.clone().fill_diagonal_(torch.inf).min(dim=0).values
    picked = [int(lonely.argmax())]
    while len(picked) < count:
        nearest = distance[picked].min(dim=0).values
        nearest[picked] = -torch.inf
        picked.append(int(nearest.argmax()))
    return sorted(picked)


def tower_states(tower, pixels):
    """What enters each layer of a tower and what leaves the last, from the tower itself."""
    with torch.no_grad():
        return tower(pixels, output_hidden_states=True).hidden_states


def last_layer_qk(tower, states):
    layer = tower.encoder.layers[-1]
    normed = layer.layer_norm1(states[-2])
    return layer.self_attn.q_proj(normed).double(), layer.self_attn.k_proj(normed).double()


def merged(features, queries, keys, count, grid=False, neighbours=32):
    """PruMerge's loops: keep by class attention, add 32 weighted neighbours, one token of the rest."""
    width = keys.shape[-1]
    attention = ((queries[:1] @ keys.T) * width**-0.5).softmax(-1)[0, 1:]
    kept = attention.argsort(descending=True)[:count].tolist()
    if grid:
        step = int(int(len(attention) / count) / 3)
        kept += [place for place in range(0, len(attention) - 1, step) if place not in kept]
    unit = keys[1:] / keys[1:].norm(dim=1, keepdim=True)
    rows = []
    for place in kept:
        similarity = unit @ unit[place]
        similarity[place] = -torch.inf
        near = similarity.argsort(descending=True)[:neighbours]
        rows.append(features[place] + (attention[near, None] * features[near]).sum(0))
    rest = [place for place in range(len(attention)) if place not in kept]
    rows.append((attention[rest, None] * features[rest]).sum(0))
    return torch.stack(rows), kept, attention


# -------------------------------------------------------------------------------------- the tests


@pytest.mark.parametrize(
    "kind",
    ["llava", "llava-next", "video-llava", "video-llava:video", "llava-onevision",
     "llava-onevision:video", "llava-next-video", "llava-next-video:video"],
)  # fmt: skip
def test_divprune_on_every_family(kind, models, cases, features, like_hand):
    model, case = models[kind.partition(":")[0]], cases[kind]
    tokens = features(model, case)
    kept = farthest(tokens, 20)
    method = get_method("divprune", keep=20)
    record = like_hand(model, case, method, tokens[kept])
    assert record.unit == "item"
    assert record.kept_indices[0].tolist() == kept


def test_divprune_at_layer_zero_is_divprune_before_the_language_model(llava, cases, generated):
    case = cases["llava"]
    before, _, _ = generated(llava, case, get_method("divprune", keep=30))
    at_zero, _, record = generated(llava, case, get_method("divprune", keep=30, layer=0))
    assert at_zero == before
    assert record.sequence_lengths == [39] * 5


@pytest.mark.parametrize(("name", "grid"), [("prumerge", False), ("prumerge+", True)])
def test_prumerge(name, grid, llava, cases, like_hand, project):
    case = cases["llava"]
    tower = llava.model.vision_tower
    states = tower_states(tower, case.inputs["pixel_values"])
    queries, keys = last_layer_qk(tower, states)
    rows, kept, attention = merged(states[-2][0, 1:].double(), queries[0], keys[0], 32, grid)
    method = get_method(name, keep=32)
    record = like_hand(llava, case, method, project(llava, rows))
    assert record.unit == "crop"
    assert record.kept_indices[0].tolist() == kept
    torch.testing.assert_close(record.scores[0].double(), attention, rtol=1e-4, atol=1e-7)
    rebuilt = record.merge_weights[0] @ states[-2][0, 1:]
    torch.testing.assert_close(rebuilt.double(), rows, rtol=1e-4, atol=1e-5)


def test_prumerge_adapts_to_the_outliers(llava, cases, like_hand, project):
    case = cases["llava"]
    tower = llava.model.vision_tower
    states = tower_states(tower, case.inputs["pixel_values"])
    queries, keys = last_layer_qk(tower, states)
    attention = ((queries[0, :1] @ keys[0].T) * 32**-0.5).softmax(-1)[0, 1:].sort().values
    lower, upper = attention.quantile(0.25), attention.quantile(0.75)
    count = int((attention > upper + 1.5 * (upper - lower)).sum())
    assert 5 < count < 100
    rows, _, _ = merged(states[-2][0, 1:].double(), queries[0], keys[0], count)
    like_hand(llava, case, get_method("prumerge"), project(llava, rows))


def test_prumerge_papers_variant_looks_one_layer_earlier(llava, cases, like_hand, project):
    case = cases["llava"]
    tower = llava.model.vision_tower
    states = tower_states(tower, case.inputs["pixel_values"])
    layer = tower.encoder.layers[-2]
    normed = layer.layer_norm1(states[-3])
    queries, keys = (
        p(normed)[0].double() for p in (layer.self_attn.q_proj, layer.self_attn.k_proj)
    )
    attention = ((queries[:1] @ keys.T) * 32**-0.5).softmax(-1)[0, 1:]
    kept = attention.argsort(descending=True)[:40].tolist()
    x = states[-2][0, 1:].double()
    rows = []
    for place in kept:
        similarity = keys[1:] @ keys[1:][place]
        similarity[kept] = -torch.inf
        near = similarity.argsort(descending=True)[:32].tolist()
        rows.append((attention[[place, *near], None] * x[[place, *near]]).sum(0))
    method = get_method("prumerge", keep=40, variant="paper")
    like_hand(llava, case, method, project(llava, torch.stack(rows)))


def test_samplers_take_their_patches_before_the_projector(llava, cases, features, like_hand):
    case = cases["llava"]
    tokens = features(llava, case)
    like_hand(llava, case, get_method("sequential", keep=40), tokens[:40])
    # 5 x 8 cells over 24 x 24: rows at (i + .5) * 4.8, columns at (j + .5) * 3.
    rows, columns = (2, 7, 12, 16, 21), (1, 4, 7, 10, 13, 16, 19, 22)
    places = [row * 24 + column for row in rows for column in columns]
    record = like_hand(llava, case, get_method("spatial", keep=40), tokens[places])
    assert record.kept_indices[0].tolist() == places


def test_m3_pools_behind_the_projector(llava, cases, features, like_hand):
    case = cases["llava"]
    grid = features(llava, case).view(6, 4, 6, 4, -1)
    pooled = grid.mean(dim=(1, 3)).reshape(36, -1)
    record = like_hand(llava, case, get_method("m3"), pooled)
    assert record.kept_indices is None
    assert record.sources[0].unique().tolist() == list(range(36))


def test_tiles_are_reduced_one_by_one_and_joined(models, cases, like_hand, project):
    """LLaVA-NeXT under PruMerge: five crops, no newline tokens, no unpadding."""
    model, case = models["llava-next"], cases["llava-next"]
    pixels = case.inputs["pixel_values"][0]
    tower = model.model.vision_tower
    states = tower_states(tower, pixels)
    queries, keys = last_layer_qk(tower, states)
    rows = [
        merged(states[-2][crop, 1:].double(), queries[crop], keys[crop], 10)[0] for crop in range(5)
    ]
    visual = project(model, torch.cat(rows))
    like_hand(model, case, get_method("prumerge", keep=10), visual)


def test_a_videos_class_tokens_go_along(models, cases, like_hand, project):
    model, case = models["video-llava"], cases["video-llava:video"]
    frames = case.inputs["pixel_values_videos"][0]
    states = tower_states(model.model.video_tower, frames)[-2]
    places = [row * 12 + column for row in (2, 6, 10) for column in (2, 6, 10)]
    rows = torch.cat([torch.cat((frame[:1], frame[1:][places])) for frame in states])
    method = get_method("spatial", keep=9)
    like_hand(model, case, method, project(model, rows))


def test_crops_of_different_lengths_meet_no_padding(models, cases, generated):
    """PruMerge+ keeps another number in each tile; the projector sees them in one row."""
    model, case = models["llava-next"], cases["llava-next"]
    rows = []
    handle = model.model.multi_modal_projector.linear_1.register_forward_pre_hook(
        lambda _m, args: rows.append(args[0].shape[:-1])
    )
    try:
        _, _, record = generated(model, case, get_method("prumerge+", keep=9))
    finally:
        handle.remove()
    kept = [len(crop) for crop in record.kept_indices]
    assert len(set(kept)) > 1
    assert rows[0] == (1, sum(kept) + 5)
    assert record.visual_tokens == (case.visual, sum(kept) + 5)


@pytest.mark.parametrize("name", ["divprune", "sequential", "m3", "spatial"])
def test_keeping_every_token_by_count_changes_nothing(name, llava, cases):
    """The true path, not the short cut of keep=1.0: all 576 tokens are taken apart and put back."""
    case = cases["llava"]
    with torch.no_grad():
        expected = llava(**case.inputs).logits
        with reduce_tokens(llava, get_method(name, keep=576)) as record:
            actual = llava(**case.inputs).logits
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)
    assert record.visual_tokens == (576, 576)


@pytest.mark.parametrize("kind", ["llava-next", "video-llava:video", "llava-onevision:video"])
def test_keeping_every_token_of_other_families_changes_nothing(kind, models, cases):
    model, case = models[kind.partition(":")[0]], cases[kind]
    with torch.no_grad():
        expected = model(**case.inputs).logits
        with reduce_tokens(model, get_method("divprune", keep=case.visual)):
            actual = model(**case.inputs).logits
    assert torch.equal(actual, expected)


def test_sampling_draws_from_the_reduced_model(llava, cases):
    """Seeded sampling twice gives the same, and the logits it samples from are the reduced ones."""
    case = cases["llava"]
    with torch.no_grad(), reduce_tokens(llava, get_method("divprune", keep=20)):
        answers = []
        for _ in range(2):
            torch.manual_seed(3)
            answers.append(
                llava.generate(**case.inputs, max_new_tokens=6, do_sample=True, temperature=2.0)
            )
        greedy = llava.generate(**case.inputs, max_new_tokens=6, do_sample=False)
    assert torch.equal(*answers)
    assert not torch.equal(answers[0], greedy)
