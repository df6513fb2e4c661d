"""Going on from a reduced prompt: step by step, in chunks, with another image, from a copied cache."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers

from hardware_specs.errors import UnsupportedError
from token_reduction import get_method, reduce_tokens
from token_reduction.apply.continuation import Prefix, continue_from
from token_reduction.caches import cache_keyword, cache_of

METHODS = [
    ("divprune", {"keep": 20}),
    ("prumerge", {"keep": 32}),
    ("tome", {}),
    ("fastv", {}),
    ("vtw", {"layer": 1}),
    ("fitprune", {}),
]


@pytest.mark.parametrize(("name", "settings"), METHODS)
def test_steps_without_positions_or_masks_answer_like_generate(name, settings, llava, cases):
    case = cases["llava"]
    with torch.no_grad(), reduce_tokens(llava, get_method(name, **settings)):
        expected = llava.generate(**case.inputs, max_new_tokens=4, do_sample=False)[0, -4:].tolist()
        output = llava(**case.inputs, use_cache=True)
        answer = []
        for _ in range(4):
            token = output.logits[:, -1:].argmax(-1)
            answer.append(int(token))
            output = llava(input_ids=token, **{cache_keyword(): cache_of(output)})
    assert answer == expected


@pytest.mark.parametrize(("name", "settings"), METHODS)
def test_a_copied_cache_goes_on_by_itself(name, settings, llava, cases):
    case = cases["llava"]
    token = torch.tensor([[9]])
    mask = torch.ones(1, 586, dtype=torch.long)
    with torch.no_grad(), reduce_tokens(llava, get_method(name, **settings)):
        cache = cache_of(llava(**case.inputs, use_cache=True))
        twin = copy.deepcopy(cache)
        first = llava(input_ids=token, **{cache_keyword(): cache}, attention_mask=mask).logits
        second = llava(input_ids=token, **{cache_keyword(): twin}, attention_mask=mask).logits
    assert torch.equal(first, second)


def test_a_second_image_in_the_same_conversation(llava, cases, features, hand, sequence, new_case):
    """Both images shortened, the second one on top of the first one's cache."""
    one, two = cases["llava"], new_case(llava, "llava", seed=4)
    with torch.no_grad(), reduce_tokens(llava, get_method("sequential", keep=10)) as record:
        cache = cache_of(llava(**one.inputs, use_cache=True))
        mask = torch.ones(1, 2 * 585, dtype=torch.long)
        logits = llava(**two.inputs, **{cache_keyword(): cache}, attention_mask=mask).logits[0, -1]
        assert cache.get_seq_length() == 2 * 19
        token = logits.argmax().view(1, 1)
        longer = torch.ones(1, 2 * 585 + 1, dtype=torch.long)
        after = llava(input_ids=token, **{cache_keyword(): cache}, attention_mask=longer).logits[
            0, -1
        ]
    assert record.visual_tokens == (576, 10)
    both = torch.cat([sequence(llava, case, features(llava, case)[:10]) for case in (one, two)])
    answer, expected = hand(llava).generate(both, 2)
    torch.testing.assert_close(logits.double(), expected, rtol=1e-4, atol=1e-4)
    assert [int(token), int(after.argmax())] == answer


def test_an_image_after_text_that_was_cached_before(llava, cases, features, hand, sequence):
    case = cases["llava"]
    text = torch.arange(20, 27).unsqueeze(0)
    with torch.no_grad(), reduce_tokens(llava, get_method("sequential", keep=10)):
        cache = cache_of(llava(input_ids=text, use_cache=True))
        logits = llava(**case.inputs, **{cache_keyword(): cache}).logits[0, -1]
    reference = hand(llava)
    whole = torch.cat((reference.embed(text[0]), sequence(llava, case, features(llava, case)[:10])))
    _, expected = reference.generate(whole, 1)
    torch.testing.assert_close(logits.double(), expected, rtol=1e-4, atol=1e-4)


def test_generate_goes_on_from_a_reduced_cache_with_a_mask(llava, cases):
    """The whole conversation is given again; the tokens the cache holds are told apart by the mask."""
    case = cases["llava"]
    ids = case.inputs["input_ids"]
    with torch.no_grad(), reduce_tokens(llava, get_method("divprune", keep=20)):
        cache = transformers.DynamicCache(config=llava.config.text_config)
        turn = llava.generate(
            **case.inputs, **{cache_keyword(): cache}, max_new_tokens=3, do_sample=False
        )
        question = torch.cat((turn, torch.tensor([[7, 8, 9]])), dim=1)
        # By hand, one forward: what the cache lacks is the last answer token and the question.
        twin = copy.deepcopy(cache)
        mask = torch.ones(1, question.shape[1], dtype=torch.long)
        expected = llava(
            input_ids=question[:, -4:], **{cache_keyword(): twin}, attention_mask=mask
        ).logits[0, -1]
        sliced = question[:, cache.get_seq_length() :]
        assert sliced.shape[1] > 4
        actual = llava(input_ids=sliced, **{cache_keyword(): cache}, attention_mask=mask).logits[
            0, -1
        ]
    assert turn.shape[1] == ids.shape[1] + 3
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_several_tokens_without_a_mask_are_ambiguous(llava, cases):
    case = cases["llava"]
    with torch.no_grad(), reduce_tokens(llava, get_method("divprune", keep=20)):
        cache = cache_of(llava(**case.inputs, use_cache=True))
        with pytest.raises(UnsupportedError, match="3 tokens continue a cache"):
            llava(input_ids=torch.tensor([[7, 8, 9]]), **{cache_keyword(): cache})


def test_a_mask_that_covers_nothing_new_is_refused():
    prefix = Prefix(None, length=19, given=585, dropped=torch.tensor([566]))
    with pytest.raises(UnsupportedError, match="covers 585 tokens"):
        continue_from(prefix, 19, 1, torch.ones(1, 585), None)


def test_continuing_counts_what_came_since():
    """19 of 585 tokens cached, 2 more since, one given: position 587 becomes 21."""
    prefix = Prefix(None, length=19, given=585, dropped=torch.tensor([566]))
    count, mask, positions = continue_from(prefix, 21, 1, torch.ones(1, 588), torch.tensor([[587]]))
    assert count == 1
    assert mask.tolist() == [[1.0] * 22]
    assert positions.tolist() == [[21]]


def test_a_text_only_prompt_passes_through(llava):
    ids = torch.arange(20, 40).unsqueeze(0)
    with torch.no_grad():
        expected = llava(input_ids=ids).logits
        for name in ("divprune", "fastv", "tome"):
            with reduce_tokens(llava, name) as record:
                assert torch.equal(llava(input_ids=ids).logits, expected)
            assert record.visual_tokens == (0, 0)


def test_a_cache_that_was_emptied_starts_anew(llava, cases):
    """What was noted on a cache about an earlier prompt does not outlive its tokens."""
    case = cases["llava"]
    ids = torch.arange(20, 40).unsqueeze(0)
    for name, settings in METHODS:
        with torch.no_grad(), reduce_tokens(llava, get_method(name, **settings)):
            cache = cache_of(llava(**case.inputs, use_cache=True))
            cache.crop(-cache.get_seq_length()) if name != "fastv" else cache.reset()
            for layer in cache.layers:
                layer.keys = layer.values = None
                layer.is_initialized = False
            llava(input_ids=ids[:, :-1], **{cache_keyword(): cache})
            step = llava(
                input_ids=ids[:, -1:], **{cache_keyword(): cache},
                attention_mask=torch.ones(1, 20, dtype=torch.long),
            ).logits[0, -1]  # fmt: skip
            expected = llava(input_ids=ids).logits[0, -1]
        torch.testing.assert_close(step, expected, rtol=1e-4, atol=1e-5)
