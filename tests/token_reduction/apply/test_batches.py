"""Batches answer like their rows alone: padding on either side, different lengths, beams."""

from __future__ import annotations

import pytest
import torch

from token_reduction import get_method, reduce_tokens

NEW = 4
#: Methods whose choice for one image does not depend on the others in the batch.
INDEPENDENT = [
    ("divprune", {"keep": 20}),
    ("prumerge", {"keep": 32}),
    ("spatial", {"keep": 9}),
    ("m3", {"keep": 9}),
    ("fastv", {"keep": 0.25}),
    ("fastv", {"keep": 0.25, "variant": "paper"}),
    ("vtw", {"layer": 1}),
    ("vtw", {"layer": 0}),
    ("divprune(keep=20)/vtw(layer=0)", {}),
    ("dart(variant=embedding, keep=16)", {}),
    ("cdpruner(variant=split, keep=16)", {}),
    ("fitprune", {}),
    ("divprune", {"keep": 20, "layer": 2}),
    ("tome", {"r": 8}),
    ("evit", {"layers": (1, 2)}),
    ("ats", {"layers": (1, 2), "keep": 50}),
    ("crossget", {"r": 8}),
    ("visionzip", {"keep": 32}),
    ("fastervlm", {"keep": 0.1}),
    ("vispruner", {"keep": 30}),
    ("hired", {"keep": 0.2}),
    ("pyramiddrop", {"layers": (1, 2)}),
    ("dart", {"keep": 16, "image_pivots": 2, "text_pivots": 2, "order": "norm"}),
    ("sparsevlm", {"layers": (0, 1), "counts": (60, 20)}),
]


def rows_of(kind, model, new_case):
    """Three prompts of different text lengths (and, where images are tiled, different images)."""
    cases = [new_case(model, kind, seed=seed) for seed in (1, 2, 3)]
    for number, case in enumerate(cases):
        extra = torch.arange(10, 10 + number).unsqueeze(0)
        case.inputs["input_ids"] = torch.cat((case.inputs["input_ids"], extra), dim=1)
    if kind == "llava-next":
        cases[1].inputs["image_sizes"] = torch.tensor([[84, 80]])
        found = model.model.get_image_features(
            **{k: v for k, v in cases[1].inputs.items() if k != "input_ids"}, return_dict=True
        ).pooler_output
        ids = cases[1].inputs["input_ids"]
        text = ids[ids != 118]
        middle = torch.full((len(found[0]),), 118)
        cases[1].inputs["input_ids"] = torch.cat((text[:4], middle, text[4:])).unsqueeze(0)
    return [case.inputs for case in cases]


def batch_of(rows, side):
    """One padded batch of several prompts, with its mask."""
    width = max(row["input_ids"].shape[1] for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        count = row["input_ids"].shape[1]
        block = slice(width - count, width) if side == "left" else slice(0, count)
        ids[number, block] = row["input_ids"][0]
        mask[number, block] = 1
    rest = {name: torch.cat([row[name] for row in rows]) for name in rows[0] if name != "input_ids"}
    return {"input_ids": ids, "attention_mask": mask, **rest}


@pytest.mark.parametrize("kind", ["llava", "llava-next"])
@pytest.mark.parametrize(("name", "settings"), INDEPENDENT)
def test_a_padded_batch_answers_like_its_rows_alone(
    kind, name, settings, models, new_case, in_double
):
    model = models[kind]
    method = get_method(name, **settings)
    with torch.no_grad():
        rows = rows_of(kind, model, new_case)
        if name == "vispruner":
            model, rows = in_double(model, rows)
        batch = batch_of(rows, "left")
        with reduce_tokens(model, method) as record:
            together = model.generate(**batch, max_new_tokens=NEW, do_sample=False)[:, -NEW:]
            counts = list(record.tokens_after)
            for number, row in enumerate(rows):
                alone = model.generate(**row, max_new_tokens=NEW, do_sample=False)[0, -NEW:]
                assert together[number].tolist() == alone.tolist()
                assert record.tokens_after == [counts[number]]


@pytest.mark.parametrize(
    ("name", "settings"), [INDEPENDENT[0], INDEPENDENT[4], INDEPENDENT[6], INDEPENDENT[7]]
)
def test_padding_on_the_right_stays_on_the_right(name, settings, models, new_case):
    model = models["llava-next"]
    with torch.no_grad():
        rows = rows_of("llava-next", model, new_case)
        batch = batch_of(rows, "right")
        with reduce_tokens(model, get_method(name, **settings)) as record:
            logits = model(**batch).logits
            after = list(record.tokens_after)
            for number, row in enumerate(rows):
                alone = model(**row).logits[0, -1]
                text = row["input_ids"].shape[1] - record.tokens_before[0]
                last = text + after[number] - 1
                torch.testing.assert_close(logits[number, last], alone, rtol=1e-4, atol=1e-4)


def test_prumerges_threshold_is_taken_over_the_batch(llava, new_case):
    """As in its program: one threshold, one number of tokens for all images of a batch."""
    with torch.no_grad():
        rows = rows_of("llava", llava, new_case)
        with reduce_tokens(llava, "prumerge") as record:
            llava(**batch_of(rows, "left"))
            together = list(record.tokens_after)
            alone = []
            for row in rows:
                llava(**row)
                alone += record.tokens_after
    assert len(set(together)) == 1
    assert len(set(alone)) > 1


@pytest.mark.parametrize(("name", "settings"), [INDEPENDENT[0], INDEPENDENT[4], INDEPENDENT[7]])
def test_beams_of_a_padded_batch_answer_like_their_rows_alone(name, settings, llava, new_case):
    with torch.no_grad():
        rows = rows_of("llava", llava, new_case)
        chosen = {"max_new_tokens": NEW, "do_sample": False, "num_beams": 3}
        with reduce_tokens(llava, get_method(name, **settings)):
            together = llava.generate(**batch_of(rows, "left"), **chosen)[:, -NEW:]
            for number, row in enumerate(rows):
                alone = llava.generate(**row, **chosen)[0, -NEW:]
                assert together[number].tolist() == alone.tolist()


@pytest.mark.parametrize(
    ("name", "settings"),
    [INDEPENDENT[0], INDEPENDENT[1], INDEPENDENT[4], INDEPENDENT[6], INDEPENDENT[8]],
)
def test_two_images_and_none_in_one_batch(name, settings, llava, new_case):
    """A row with two images apart, a row with one, a row of text only."""
    method = get_method(name, **settings)
    with torch.no_grad():
        one = new_case(llava, "llava", seed=1).inputs
        other = new_case(llava, "llava", seed=2).inputs
        two = {
            "input_ids": torch.cat((one["input_ids"], other["input_ids"]), dim=1),
            "pixel_values": torch.cat((one["pixel_values"], other["pixel_values"])),
        }
        text = torch.arange(20, 60).unsqueeze(0)
        width = two["input_ids"].shape[1]
        ids, mask = torch.zeros(3, width, dtype=torch.long), torch.zeros(3, width, dtype=torch.long)
        for number, row in enumerate((two["input_ids"], one["input_ids"], text)):
            ids[number, width - row.shape[1] :] = row[0]
            mask[number, width - row.shape[1] :] = 1
        pixels = torch.cat((two["pixel_values"], one["pixel_values"]))
        batch = {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels}
        with reduce_tokens(llava, method):
            together = llava.generate(**batch, max_new_tokens=NEW, do_sample=False)[:, -NEW:]
            for number, row in enumerate((two, one, {"input_ids": text})):
                alone = llava.generate(**row, max_new_tokens=NEW, do_sample=False)[0, -NEW:]
                assert together[number].tolist() == alone.tolist()


def test_padding_that_no_row_needs_is_dropped(models, new_case):
    """Rows that differ by image tokens alone are nearly equal once the image has gone."""
    model = models["llava-next"]
    with torch.no_grad():
        rows = rows_of("llava-next", model, new_case)
        batch = batch_of(rows, "left")
        with reduce_tokens(model, get_method("vtw", layer=1)) as record:
            model(**batch)
        # 9 text tokens and up to two more.
        assert record.sequence_lengths[1:] == [11] * 4
        with reduce_tokens(model, get_method("divprune", keep=10)) as record:
            model(**batch)
        assert record.sequence_lengths == [21] * 5
