"""DyCoke's second stage in a model: decode steps that read a part of the cache, by hand and in batches."""

from __future__ import annotations

import pytest
import torch

from hardware_specs.errors import InvalidInputError, UnsupportedError
from token_reduction import get_method, reduce_tokens
from token_reduction.caches import cache_keyword, cache_of
from token_reduction.dycoke import dycoke

KIND, FRAMES, AT, STEPS = "llava-onevision:video", 3, 2, 6


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


class Reader:
    """A hand-written model whose steps read chosen entries from a layer on."""

    def __init__(self, hand, first, visual, park, alike):
        self.hand, self.visual = hand, range(first, first + visual)
        self.park, self.alike, self.last, self.sets = park, alike, None, []

    def choose(self, weights):
        row = weights[:, 0, list(self.visual)].mean(dim=0)
        count = int(len(self.visual) * (1 - self.park))
        chosen = sorted(row.argsort(descending=True)[:count].tolist())
        if self.last is not None and cosine(row, self.last) >= self.alike:
            chosen = self.sets[-1]
        self.last = row
        self.sets.append(chosen)

    def step(self, token, place):
        hand, x, weights = self.hand, self.hand.embed(torch.tensor([token])), None
        for number in range(hand.config.num_hidden_layers):
            keys, values = hand.keys[number], hand.values[number]
            if number == AT:
                self.choose(weights)
            if number >= AT:
                gone = set(self.visual) - {self.visual[i] for i in self.sets[-1]}
                read = [i for i in range(keys.shape[1]) if i not in gone]
                hand.keys[number], hand.values[number] = keys[:, read], values[:, read]
            x, _, weights = hand.layer(number, x, torch.tensor([place]))
            hand.keys[number] = torch.cat((keys, hand.keys[number][:, -1:]), dim=1)
            hand.values[number] = torch.cat((values, hand.values[number][:, -1:]), dim=1)
        return hand.logits(x)


@pytest.mark.parametrize(("park", "alike"), [(0.7, 0.9), (0.7, 1.0), (0.4, -1.0), (1.0, 0.9)])
def test_steps_read_what_was_chosen(
    park, alike, models, cases, features, hand, sequence, agree
) -> None:
    model, case = models["llava-onevision"], cases[KIND]
    tokens = features(model, case)
    clip = tokens[:-1].view(FRAMES, -1, tokens.shape[-1])
    kept = dycoke(clip).kept_indices
    visual = torch.cat((tokens[:-1][kept], tokens[-1:]))
    embeddings = sequence(model, case, visual)
    by_hand = hand(model)
    by_hand.generate(embeddings, 1)
    reader = Reader(by_hand, case.start, len(visual), park, alike)
    line = get_method("dycoke", variant="both", park=park, alike=alike, at=AT)
    generator = torch.Generator().manual_seed(3)
    answer = torch.randint(5, 90, (STEPS,), generator=generator).tolist()
    with torch.no_grad(), reduce_tokens(model, line):
        out = model(**case.inputs, use_cache=True)
        cache = cache_of(out)
        for number, token in enumerate(answer):
            out = model(input_ids=torch.tensor([[token]]), **{cache_keyword(): cache})
            expected = reader.step(token, len(embeddings) + number)
            torch.testing.assert_close(out.logits[0, -1].double(), expected, rtol=1e-3, atol=1e-4)
    held = [layer.keys.shape[-2] for layer in cache.layers]
    assert set(held) == {len(embeddings) + STEPS}  # what is not read stays
    assert not any("update" in vars(layer) for layer in cache.layers)
    if alike == -1.0:
        assert all(chosen == reader.sets[0] for chosen in reader.sets)
    if park == 0.7 and alike == 1.0:
        assert len({tuple(chosen) for chosen in reader.sets}) > 1


@pytest.mark.parametrize("line", [f"dycoke(variant=both, at={AT})", "holitom(keep=0.4, cut=2)"])
def test_a_batch_with_padding_answers_as_its_rows(line, models, cases) -> None:
    model, case = models["llava-onevision"], cases[KIND]
    ids = case.inputs["input_ids"]
    longer = torch.cat((ids, torch.tensor([[7, 8, 9]])), dim=1)
    padded = torch.cat((torch.zeros(1, 3, dtype=ids.dtype), ids), dim=1)
    mask = torch.ones(2, longer.shape[1], dtype=torch.long)
    mask[1, :3] = 0
    rest = {k: v for k, v in case.inputs.items() if k not in ("input_ids", "attention_mask")}
    both = {k: v.repeat(2, *[1] * (v.ndim - 1)) for k, v in rest.items()}
    asked = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    with torch.no_grad(), reduce_tokens(model, line):
        together = model.generate(
            input_ids=torch.cat((longer, padded)), attention_mask=mask, **both, **asked
        )[:, longer.shape[1] :]
        alone = [
            model.generate(input_ids=row, **rest, **asked)[0, row.shape[1] :]
            for row in (longer, ids)
        ]
    assert together.tolist() == [row.tolist() for row in alone]


def test_an_emptied_cache_is_read_whole(models, cases) -> None:
    model, case = models["llava-onevision"], cases[KIND]
    text = torch.randint(5, 90, (1, 120), generator=torch.Generator().manual_seed(3))

    def steps():
        """The cache of the clip is emptied, and longer text comes in its place."""
        cache = cache_of(model(**case.inputs, use_cache=True))
        cache.crop(-cache.get_seq_length())
        return [
            model(input_ids=ids, **{cache_keyword(): cache}).logits[:, -1]
            for ids in (text, text[:, :1], text[:, 1:2])
        ]

    with torch.no_grad():
        expected = steps()
        with reduce_tokens(model, get_method("dycoke", variant="both", at=AT, keep=0.3)):
            found = steps()
    torch.testing.assert_close(found, expected)


def test_what_cannot_be_read_in_part(models, cases) -> None:
    model, case = models["llava-onevision"], cases[KIND]
    with pytest.raises(InvalidInputError, match="at layer 40"):  # noqa: SIM117
        with reduce_tokens(model, "dycoke(variant=both, at=40)"):
            pass
    with pytest.raises(InvalidInputError, match="two methods stack"):
        get_method("dycoke(variant=both)/fastv")
    ids = case.inputs["input_ids"]
    rest = {k: v for k, v in case.inputs.items() if k not in ("input_ids", "attention_mask")}
    plain = torch.full_like(ids, 7)
    with (
        torch.no_grad(), reduce_tokens(model, f"dycoke(variant=both, at={AT})"),
        pytest.raises(UnsupportedError, match="run them one by one"),
    ):  # fmt: skip
        model(input_ids=torch.cat((ids, plain)), **rest, use_cache=True)
