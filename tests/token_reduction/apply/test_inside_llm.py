"""Methods inside the language model against a ragged cache kept by hand, layer by layer."""

from __future__ import annotations

import pytest
import torch

from costmodel.methods.fitprune import scheme_for
from token_reduction import get_method, reduce_tokens
from token_reduction.caches import cache_keyword, cache_of
from token_reduction.sparsevlm import recycle
from token_reduction.tokens.reduced import Selection

KINDS = ["llava", "llava-next", "video-llava:video", "llava-onevision", "llava-next-video:video"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", [1, 3])
def test_fastv(kind, layer, models, cases, features, sequence, agree):
    model, case = models[kind.partition(":")[0]], cases[kind]
    embeddings = sequence(model, case, features(model, case))
    picked = []

    def cut(number, x, weights, _positions):
        if number != layer:
            return None
        row = weights[:, -1, case.start : case.start + case.visual].mean(0)
        picked[:] = row.argsort(descending=True)[: round(case.visual * 0.25)].sort().values.tolist()
        return case.rows(len(x), picked)

    method = get_method("fastv", keep=0.25, layer=layer)
    record = agree(model, case, method, embeddings, before_layer=cut)
    assert record.unit == "sequence"
    assert record.kept_indices[0].tolist() == picked
    assert list(record.kept_by_layer) == [layer]
    assert record.visual_tokens == (case.visual, len(picked))


def test_fastv_paper_variant_averages_over_all_rows(llava, cases, features, sequence, agree):
    case = cases["llava"]
    embeddings = sequence(llava, case, features(llava, case))

    def cut(number, x, weights, _positions):
        if number != 2:
            return None
        received = weights.sum(1) - weights.diagonal(dim1=1, dim2=2)
        row = received[:, case.start : case.start + case.visual].mean(0)
        return case.rows(len(x), row.argsort(descending=True)[:100].tolist())

    method = get_method("fastv", keep=100, variant="paper")
    agree(llava, case, method, embeddings, before_layer=cut)


def test_fastv_at_layer_zero_keeps_a_seeded_random_subset(llava, cases, generated):
    case = cases["llava"]
    kept = []
    for seed in (0, 0, 1):
        method = get_method("fastv", keep=60, layer=0, seed=seed)
        _, _, record = generated(llava, case, method)
        assert record.sequence_lengths == [69] * 5
        kept.append(record.kept_indices[0])
    assert torch.equal(kept[0], kept[1])
    assert not torch.equal(kept[0], kept[2])


@pytest.mark.parametrize("kind", KINDS)
def test_vtw(kind, models, cases, features, sequence, agree):
    model, case = models[kind.partition(":")[0]], cases[kind]
    embeddings = sequence(model, case, features(model, case))

    def cut(number, x, _weights, _positions):
        return case.rows(len(x), []) if number == 2 else None

    method = get_method("vtw", layer=2)
    record = agree(model, case, method, embeddings, before_layer=cut)
    length = len(embeddings)
    assert record.sequence_lengths == [length, length, 9, 9, 9]
    assert record.visual_tokens == (case.visual, 0)


@pytest.mark.parametrize("line", ["vtw(layer=0)", "divprune(keep=20)/vtw(layer=0)"])
def test_a_step_without_positions_counts_what_was_cut_before_the_first_layer(llava, cases, line):
    inputs = cases["llava"].inputs
    new = torch.tensor([[7, 8]])
    longer = {**inputs, "input_ids": torch.cat((inputs["input_ids"], new), dim=1)}
    with torch.no_grad(), reduce_tokens(llava, get_method(line)):
        whole = llava(**longer).logits[:, -1]
        out = llava(**inputs, use_cache=True)
        for token in new.T:
            out = llava(input_ids=token[None], **{cache_keyword(): cache_of(out)}, use_cache=True)
    torch.testing.assert_close(out.logits[:, -1], whole)


def test_divprune_at_a_layer_keeps_positions(llava, cases, features, sequence, agree):
    case = cases["llava"]
    embeddings = sequence(llava, case, features(llava, case))

    def cut(number, x, _weights, _positions):
        if number != 2:
            return None
        tokens = x[case.start : case.start + case.visual]
        unit = tokens / tokens.norm(dim=1, keepdim=True)
        distance = 1 - unit @ unit.T
        picked = [int(distance.clone().fill_diagonal_(torch.inf).min(0).values.argmax())]
        while len(picked) < 40:
            nearest = distance[picked].min(0).values
            nearest[picked] = -torch.inf
            picked.append(int(nearest.argmax()))
        return case.rows(len(x), picked)

    method = get_method("divprune", keep=40, layer=2)
    agree(llava, case, method, embeddings, before_layer=cut)


@pytest.mark.parametrize("kind", ["llava", "llava-next", "llava-onevision:video"])
@pytest.mark.parametrize("scheme", [None, (0, 30, 0, 20)])
def test_fitprune(kind, scheme, models, cases, features, sequence, agree, hand):
    model, case = models[kind.partition(":")[0]], cases[kind]
    embeddings = sequence(model, case, features(model, case))
    deletions = scheme or scheme_for(0.4, None, 4, case.visual)
    left = [case.visual]

    def delete(number, weights):
        if not deletions[number]:
            return None
        strongest = weights.max(0).values
        image = slice(case.start, case.start + left[0])
        own = strongest[image, image].sum(0) / left[0]
        cross = strongest[image.stop :, image].sum(0)
        worst = (own * cross).argsort(stable=True)[: deletions[number]].tolist()
        left[0] -= deletions[number]
        return [i for i in range(len(strongest)) if i - case.start not in worst]

    method = get_method("fitprune", scheme=scheme)
    reference = hand(model)
    record = agree(model, case, method, embeddings, reference, after_attention=delete)
    assert record.visual_tokens == (case.visual, case.visual - sum(deletions))
    # The cache of a layer holds what entered it, deletions of its own included.
    held = [keys.shape[1] - 3 for keys in reference.keys]  # of four tokens that were generated
    assert held == record.sequence_lengths[:4]


@pytest.mark.parametrize("kind", ["llava", "llava-next", "llava-onevision"])
def test_pyramiddrop_renumbers(kind, models, cases, features, hand, sequence, agree):
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
        rows = case.rows(len(x), image.argsort(descending=True)[:count], left[0])
        left[0] = count
        return rows

    method = get_method("pyramiddrop", keep=0.5, layers=(1, 3))
    record = agree(model, case, method, embeddings, before_layer=drop, renumber=True)
    assert list(record.kept_by_layer) == [1, 3]
    assert record.visual_tokens == (case.visual, case.visual // 2 // 2)


@pytest.mark.parametrize("order", ["norm", "set"])
def test_dart(order, llava, cases, features, hand, sequence, agree):
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
        return case.rows(len(x), sorted(taken))

    method = get_method("dart", keep=40, layer=2, image_pivots=3, text_pivots=2, order=order)
    record = agree(llava, case, method, embeddings, before_layer=drop)
    assert record.visual_tokens == (576, 43)


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

    method = get_method("sparsevlm", layers=(0, 2), counts=(200, 60))
    record = agree(llava, case, method, embeddings, before_layer=drop, renumber=True)
    # 376 go, 112 of them are recycled in 12 clusters; of 212, 152 go, 45 recycled in 5.
    assert record.sequence_lengths == [585, 9 + 212, 9 + 212, 9 + 65, 9 + 65]
    assert record.visual_tokens == (576, 65)
    assert len(record.kept_indices[0]) <= 60


def test_cache_lengths_are_ragged_and_new_positions_come_from_the_first_layer(llava, cases):
    case = cases["llava"]
    with torch.no_grad(), reduce_tokens(llava, get_method("fastv", keep=0.25)):
        output = llava(**case.inputs, use_cache=True)
        cache = cache_of(output)
        assert [cache.get_seq_length(layer) for layer in range(4)] == [585, 585, 153, 153]
        token = output.logits[:, -1:].argmax(-1)
        seen = []
        rope = llava.model.language_model.rotary_emb
        handle = rope.register_forward_pre_hook(
            lambda _m, _a, kwargs: seen.append(kwargs["position_ids"].tolist()), with_kwargs=True
        )
        llava(input_ids=token, **{cache_keyword(): cache})
        handle.remove()
    assert seen == [[[585]]]


@pytest.mark.parametrize("name", ["fastv", "vtw", "fitprune"])
def test_eager_attention_answers_like_sdpa(name, llava, make_model, cases, generated):
    """The 4-D masks of eager attention are narrowed with the tokens, in prefill and decode."""
    case = cases["llava"]
    method = get_method(name, layer=2) if name != "fitprune" else get_method(name)
    answer, first, _ = generated(llava, case, method)
    eager_answer, eager_first, _ = generated(make_model("llava", "eager"), case, method)
    assert eager_answer == answer
    torch.testing.assert_close(eager_first, first, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["fastv", "vtw", "fitprune", "divprune"])
def test_several_tokens_at_once_continue_like_one_after_the_other(name, llava, cases):
    case = cases["llava"]
    method = get_method(name) if name in ("divprune", "fitprune") else get_method(name, layer=2)
    more = torch.tensor([[5, 9, 23]])
    with torch.no_grad(), reduce_tokens(llava, method):
        cache = cache_of(llava(**case.inputs, use_cache=True))
        for token in more[0]:
            single = llava(input_ids=token.view(1, 1), **{cache_keyword(): cache}).logits[0, -1]
        cache = cache_of(llava(**case.inputs, use_cache=True))
        # The caller counts the prompt as it was: 585 tokens.
        mask = torch.ones(1, 585 + 3, dtype=torch.long)
        together = llava(input_ids=more, **{cache_keyword(): cache}, attention_mask=mask).logits[
            0, -1
        ]
    torch.testing.assert_close(together, single, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["fastv", "fitprune", "prumerge", "tome"])
def test_without_a_cache_every_step_reduces_anew(name, llava, cases):
    """Recomputing the whole prompt each step agrees with the cache where nothing later is looked at."""
    case = cases["llava"]
    settings = {"keep": 32} if name == "prumerge" else {}
    with torch.no_grad(), reduce_tokens(llava, get_method(name, **settings)) as record:
        output = llava.generate(**case.inputs, max_new_tokens=3, do_sample=False, use_cache=False)
        lengths = record.sequence_lengths
    assert output.shape[1] == 585 + 3
    # Two answers went through the last forward besides the prompt.
    with torch.no_grad(), reduce_tokens(llava, get_method(name, **settings)) as record:
        llava(**case.inputs)
    assert lengths == [length + 2 for length in record.sequence_lengths]
