"""Two methods in one model: what the second sees is what the first left."""

from __future__ import annotations

import pytest
import torch

from hardware_specs.errors import InvalidInputError
from token_reduction import get_method, reduce_tokens

#: The same tokens by another way: everything that the first keeps, and then the second's cut.
ASKED = {"max_new_tokens": 4, "do_sample": False}


def lengths(record):
    return record.sequence_lengths


@pytest.mark.parametrize("second", ["fastv(keep=20, layer=2)", "v2drop(layers=[1,2], shares=[0.5,0])",
                                    "pyramiddrop(keep=0.5)", "vtw(layer=2)"])  # fmt: skip
@pytest.mark.parametrize("first", ["divprune(keep=64)", "prumerge(keep=40)", "visionzip(keep=48)"])
def test_the_second_cuts_what_the_first_left(llava, cases, first, second) -> None:
    case = cases["llava"]
    with torch.no_grad():
        with reduce_tokens(llava, first) as alone:
            llava(**case.inputs)
        left = alone.visual_tokens[1]
        with reduce_tokens(llava, f"{first}/{second}") as record:
            out = llava.generate(**case.inputs, **ASKED)
    assert out.shape[1] == case.inputs["input_ids"].shape[1] + 4
    assert record.visual_tokens[0] == 576
    assert record.sequence_lengths[0] == left + 9
    assert record.visual_tokens[1] < left
    one, two = record.stages
    assert one.visual_tokens == (576, left)
    assert two.visual_tokens == (left, record.visual_tokens[1])
    assert torch.equal(one.kept_indices[0], alone.kept_indices[0])


@pytest.mark.parametrize(
    "kind", ["llava", "llava-next", "llava-onevision", "llava-onevision:video"]
)
def test_a_second_that_keeps_all_is_the_first_alone(models, cases, kind) -> None:
    model, case = models[kind.partition(":")[0]], cases[kind]
    with torch.no_grad():
        with reduce_tokens(model, "divprune(keep=20)"):
            expected = model(**case.inputs).logits
            answer = model.generate(**case.inputs, **ASKED)
        for second in ("fastv(keep=20, layer=1)", "fastv(keep=1.0)"):
            with reduce_tokens(model, f"divprune(keep=20)/{second}") as record:
                torch.testing.assert_close(
                    model(**case.inputs).logits, expected, rtol=1e-4, atol=1e-4
                )
                assert torch.equal(model.generate(**case.inputs, **ASKED), answer)
            assert record.visual_tokens == (case.visual, 20)
        with reduce_tokens(model, "divprune(keep=1.0)/fastv(keep=9, layer=1)") as record:
            both = model(**case.inputs).logits
        with reduce_tokens(model, "fastv(keep=9, layer=1)"):
            torch.testing.assert_close(model(**case.inputs).logits, both)


def test_it_is_the_language_model_on_rows_cut_by_hand(llava, cases) -> None:
    """Withdrawing all tokens at layer 2 leaves the text, whose places count on from what was left."""
    case = cases["llava"]
    with torch.no_grad(), reduce_tokens(llava, "divprune(keep=30)/vtw(layer=2)") as record:
        llava(**case.inputs)
    assert lengths(record) == [39, 39, 9, 9, 9]


def test_two_prompts_of_different_lengths(llava, cases) -> None:
    case = cases["llava"]
    ids = case.inputs["input_ids"]
    other = torch.cat((torch.zeros(1, 2, dtype=ids.dtype), ids[:, 2:]), dim=1)
    mask = torch.ones(2, ids.shape[1], dtype=torch.long)
    mask[1, :2] = 0
    batch = {
        "input_ids": torch.cat((ids, other)), "attention_mask": mask,
        "pixel_values": case.inputs["pixel_values"].repeat(2, 1, 1, 1),
    }  # fmt: skip
    line = "divprune(keep=40)/fastv(keep=10, layer=1)"
    with torch.no_grad(), reduce_tokens(llava, line):
        logits = llava(**batch).logits
        alone = llava(**case.inputs).logits
    torch.testing.assert_close(logits[0, -1], alone[0, -1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("fastv/divprune", "first acts before the language model"),
        ("divprune/visionzip", "first acts before the language model"),
        ("divprune/fastv/vtw", "two methods stack"),
    ],
)
def test_what_does_not_stack(line, message) -> None:
    with pytest.raises(InvalidInputError, match=message):
        get_method(line)
    with pytest.raises(InvalidInputError, match="in brackets"):
        get_method("divprune/fastv", keep=0.5)
